package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"strata/internal/command"
	"strata/internal/netaddr"
	"strata/internal/ninep"
	"strata/vdisk/guest"
	"strata/vdisk/live"
	"strata/vdisk/nbd"
)

const qemuDoc = `Print a command line of QEMU that runs a disk over NBD, or with --run, run it.

What is run of a NAME is the live disk itself. A NAME@SNAP, a score and, with
--throw-away, a NAME are run as a disk of the guest's own, which is made without
copying and is gone when QEMU ends, however it ends. With --throw-away NAME a
snapshot of it is taken first.

The address is one that the vdisk tells of in /status: a socket if it is on this
machine, or else TCP. Where who connects is not known (TCP without certificates)
live disks cannot be written to; then, and where no Fossil is, what the guest
writes goes to a temporary file of QEMU's (snapshot=on).

The machine is a PC with 1 GiB of memory, two processors, KVM where QEMU can use
it, its serial line and QEMU's monitor on the terminal (C-a x ends it, C-a h
helps), and a network card behind QEMU's router, but for what the arguments after
-- say: they are QEMU's, and later ones count. Disk and card are virtio's, but of
a disk with NTFS, as Windows has no driver for these of its own.

UEFI is chosen, with the firmware of Debian's package ovmf or the like, if there
is an EFI system partition with a file *.efi in a directory below EFI, and nothing
that a BIOS could start: the boot sector holds no code, or it does but the table
is a GPT with neither a BIOS boot partition nor one marked for legacy BIOS. In all
other cases it is QEMU's BIOS. --firmware FILE overrides that.`

// firmwares are where packages of distributions put a firmware with UEFI for
// QEMU's -bios.
var firmwares = []string{
	"/usr/share/ovmf/OVMF.fd", // Debian, Ubuntu
	"/usr/share/OVMF/OVMF.fd",
	"/usr/share/edk2/ovmf/OVMF.fd", // Fedora
	"/usr/share/edk2/x64/OVMF.4m.fd",
	"/usr/share/edk2/x64/OVMF.fd", // Arch
	"/usr/share/qemu/ovmf-x86_64.bin",
}

func qemuCommand() *command.Command {
	var server, firmware string
	var run, throwAway bool
	return &command.Command{
		Name: "vdisk qemu", Usage: "[-s address] [--run] [--throw-away] [--firmware file] NAME[@SNAP]|SCORE [-- argument...]",
		Doc: qemuDoc,
		Flags: func(fs *pflag.FlagSet) {
			serverFlag(fs, &server)
			fs.BoolVar(&run, "run", false, "run it in place of this program: its exit status and signals are QEMU's")
			fs.BoolVar(&throwAway, "throw-away", false, "let nothing that the guest writes stay")
			fs.StringVar(&firmware, "firmware", "", "`file` to use as firmware, whatever the disk needs")
		},
		Run: func(ctx context.Context, io command.IO) error {
			if len(io.Args) == 0 {
				return command.ErrUsage
			}
			m, err := machine(ctx, server, io.Args[0], throwAway, firmware)
			if err != nil {
				return err
			}
			m.More = io.Args[1:]
			if !run {
				_, err := fmt.Fprintln(io.Stdout, guest.Quote(m.Command()))
				return err
			}
			path, err := exec.LookPath(guest.QEMU)
			if err != nil {
				return err
			}
			return fmt.Errorf("%s: %w", path, syscall.Exec(path, m.Command(), os.Environ()))
		},
	}
}

// machine finds out how the disk that ref names is to be run.
func machine(ctx context.Context, server, ref string, throwAway bool, firmware string) (*guest.Machine, error) {
	conn, root, err := dial(ctx, server, ninep.Classic)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := served{root, serverAddr(server)}
	export, paths, isLive, err := disksOf(ref)
	if err != nil {
		return nil, err
	}
	at, err := c.nbdAddr(ctx)
	if err != nil {
		return nil, err
	}
	m := &guest.Machine{}
	switch throwAway = throwAway || !isLive; {
	case throwAway && at.writes:
		export = live.ThrowAwayPrefix + export
	case throwAway:
		m.Snapshot = true
	case !at.writes:
		return nil, fmt.Errorf("%s can only be read at %s: name the vdisk's socket with --server, or use --throw-away", ref, at.text)
	}
	m.URI = guest.URI(at.Network, at.Address, export)
	needs, err := c.look(ctx, paths)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	m.IDE, m.Firmware = needs.IDE, firmware
	if needs.UEFI && m.Firmware == "" {
		if m.Firmware = findFirmware(); m.Firmware == "" {
			return nil, errors.New("the disk starts by UEFI only, and there is no firmware for that here: install ovmf, or name its file with --firmware")
		}
	}
	return m, nil
}

// disksOf returns what a disk is called over NBD, where it may be in the tree,
// and whether it is a live one.
func disksOf(ref string) (export string, paths []string, isLive bool, err error) {
	if text, err := scoreText(ref); err == nil {
		return text, []string{"score/" + text + "/disk"}, false, nil
	}
	name, snap, err := live.ParseRef(ref)
	if err != nil {
		return "", nil, false, err
	}
	image := "images/" + name
	if snap == "" {
		return ref, []string{image + "/disk"}, true, nil
	}
	return ref, []string{image + "/tag/" + snap + "/disk", image + "/snap/" + snap + "/disk"}, false, nil
}

// findFirmware returns the file of a firmware with UEFI, or "".
func findFirmware() string {
	for _, name := range firmwares {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

// A served tree is what a vdisk serves.
type served struct {
	root *ninep.File
	addr string // of the vdisk
}

// An nbdAddr is an address at which a vdisk has disks over NBD.
type nbdAddr struct {
	netaddr.Addr
	text   string
	writes bool // live disks can be written to
}

// nbdAddr returns the best of the addresses that the vdisk tells of: one where
// disks can be written to, and a socket before TCP. QEMU's way with certificates
// is not ours, so that those of TLS are left out.
func (c served) nbdAddr(ctx context.Context) (best nbdAddr, err error) {
	f, err := c.root.Walk(ctx, "status")
	if err != nil {
		return best, err
	}
	defer f.Close(ctx)
	if err := f.Open(ctx, ninep.OREAD); err != nil {
		return best, err
	}
	var text strings.Builder
	for b, err := range f.Stream(ctx, 0) {
		if err != nil {
			return best, err
		}
		text.Write(b)
	}
	s := bufio.NewScanner(strings.NewReader(text.String()))
	rank := 0
	for s.Scan() {
		rest, ok := strings.CutPrefix(s.Text(), "nbd ")
		i := strings.LastIndexByte(rest, ' ')
		if !ok || i < 0 {
			continue
		}
		a := nbdAddr{text: rest[:i], writes: rest[i+1:] == "read-write"}
		if a.Addr, err = netaddr.Parse(a.text, nbd.Service); err != nil {
			continue
		}
		r := 1
		switch a.Network {
		case "unix":
			if _, err := os.Stat(a.Address); err != nil {
				continue // it is another machine's
			}
			r = 2
		case "tcp":
			a.Address = c.reachable(a.Address)
		default:
			continue
		}
		if a.writes {
			r += 2
		}
		if r > rank {
			best, rank = a, r
		}
	}
	if rank == 0 {
		return best, fmt.Errorf("%s has no disks over NBD that QEMU could reach: see vdisk serve --nbd", c.addr)
	}
	return best, nil
}

// reachable returns a TCP address with a host, if it has none: that of the
// vdisk.
func (c served) reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return address
	}
	host = "127.0.0.1"
	if a, err := netaddr.Parse(c.addr, service); err == nil && a.Network != "unix" {
		if h, _, err := net.SplitHostPort(a.Address); err == nil && h != "" {
			host = h
		}
	}
	return net.JoinHostPort(host, port)
}

// look finds out what the disk needs that is in one of the places in the tree.
func (c served) look(ctx context.Context, paths []string) (n guest.Needs, err error) {
	var f *ninep.File
	for _, path := range paths {
		if f, err = c.root.Walk(ctx, strings.Split(path, "/")...); err == nil {
			break
		}
	}
	if err != nil {
		return n, err
	}
	defer f.Close(ctx)
	if err := f.Open(ctx, ninep.OREAD); err != nil {
		return n, err
	}
	d, err := f.Stat(ctx)
	if err != nil {
		return n, err
	}
	return guest.Look(fileReader{ctx, f}, d.Length)
}

// A fileReader reads an open file.
type fileReader struct {
	ctx context.Context
	f   *ninep.File
}

func (r fileReader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(r.ctx, p, off) }
