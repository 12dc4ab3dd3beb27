// Package guest says how QEMU runs a disk.
//
//	n, err := guest.Look(disk, size)
//	m := guest.Machine{URI: guest.URI("unix", "/run/nbd.sock", "web/01"), IDE: n.IDE, Firmware: firmware}
//	fmt.Println(guest.Quote(m.Command())) // qemu-system-x86_64 -machine ...
package guest

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/fat"
	"strata/vdisk/partition"
)

// Needs are what a disk needs of a machine besides what all do.
type Needs struct {
	UEFI bool // firmware of this kind, for a BIOS cannot start it
	IDE  bool // a disk of this kind, for want of a driver of virtio
}

// Types of partitions.
const (
	typeESP     = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeBIOS    = "21686148-6449-6e6f-744e-656564454649" // where GRUB keeps what its boot code starts
	typeESPByte = "ef"
)

const (
	bootCode   = 440    // bytes of the first sector that a BIOS runs, before the signature of the disk
	attrLegacy = 1 << 2 // of a partition in a GPT: what the boot code of syslinux starts
)

// Look finds out what a disk of size bytes needs.
//
// It needs UEFI if an EFI system partition holds a loader, a file *.efi in one
// of the directories below EFI, and a BIOS has nothing to start: the first sector
// holds no code, or the table is a GPT with neither a partition for GRUB nor one
// that is to be started by a BIOS, so that what code there is leads nowhere. It
// needs IDE if a partition holds NTFS. A file system that cannot be read needs
// nothing; the error is that of reading the disk.
func Look(r io.ReaderAt, size int64) (n Needs, err error) {
	t, err := partition.Read(r, size)
	if err != nil {
		return n, err
	}
	var sector [512]byte
	if _, err := r.ReadAt(sector[:min(size, 512)], 0); err != nil && err != io.EOF {
		return n, err
	}
	bios := sector[510] == 0x55 && sector[511] == 0xaa && !bytes.Equal(sector[:bootCode], make([]byte, bootCode))
	if t.Scheme == partition.GPT {
		bios = bios && slices.ContainsFunc(t.Partitions, func(p partition.Partition) bool {
			return p.Type == typeBIOS || p.Attrs&attrLegacy != 0
		})
	}
	loader := false
	for _, p := range t.Partitions {
		in := io.NewSectionReader(r, p.Start, p.Length)
		var head [11]byte
		if _, err := in.ReadAt(head[:], 0); err != nil && err != io.EOF {
			return n, err
		}
		n.IDE = n.IDE || string(head[3:]) == "NTFS    "
		if p.Type == typeESP || p.Type == typeESPByte {
			loader = loader || hasLoader(in)
		}
	}
	n.UEFI = loader && !bios
	return n, nil
}

// hasLoader tells whether there is something for UEFI to start in a partition.
func hasLoader(in *io.SectionReader) bool {
	root, err := fat.Open(in, in.Size())
	if err != nil {
		return false
	}
	efi, err := root.Lookup("EFI")
	if err != nil {
		return false
	}
	for _, dir := range entries(efi) {
		for _, f := range entries(dir.File) {
			if strings.HasSuffix(strings.ToLower(f.Name), ".efi") {
				return true
			}
		}
	}
	return false
}

// maxLooked is how many names of a directory are looked at.
const maxLooked = 1000

// entries returns what can be read of a directory.
func entries(f fsys.File) (list []fsys.Entry) {
	if !f.Info().Mode.IsDir() {
		return nil
	}
	for e, err := range f.Entries() {
		if err != nil || len(list) == maxLooked {
			break
		}
		list = append(list, e)
	}
	return list
}

// A Machine is one that a disk is to run in.
type Machine struct {
	URI      string // of the disk, over NBD
	Snapshot bool   // what is written goes to a file of QEMU's own, for it cannot go to the disk
	IDE      bool
	Firmware string   // a file in place of the BIOS, or ""
	More     []string // arguments of QEMU that go before the others
}

// QEMU is the program that runs machines.
const QEMU = "qemu-system-x86_64"

// Command returns QEMU's command line: a PC with 1 GiB of memory and two
// processors, KVM where it can be used, the serial line and QEMU's monitor on the
// terminal, and a network card behind QEMU's own router unless More is about the
// network.
func (m *Machine) Command() []string {
	bus, card := "virtio", "virtio-net-pci"
	if m.IDE {
		bus, card = "ide", "e1000"
	}
	drive := "file=" + strings.ReplaceAll(m.URI, ",", ",,") + ",format=raw,if=" + bus + ",discard=unmap"
	if m.Snapshot {
		drive += ",snapshot=on"
	}
	args := []string{
		// QEMU takes the first accelerator that it can use; max are all features
		// that it has.
		QEMU, "-machine", "q35,accel=kvm:tcg", "-cpu", "max", "-m", "1024", "-smp", "2",
		"-drive", drive, "-display", "none", "-serial", "mon:stdio",
	}
	if m.Firmware != "" {
		args = append(args, "-bios", m.Firmware)
	}
	if !slices.ContainsFunc(m.More, func(s string) bool { return s == "-nic" || s == "-net" || s == "-netdev" }) {
		args = append(args, "-nic", "user,model="+card)
	}
	return append(args, m.More...)
}

// URI returns what an export is called at an address of package net's.
func URI(network, address, export string) string {
	name := (&url.URL{Path: export}).EscapedPath()
	if network == "unix" {
		return fmt.Sprintf("nbd+unix:///%s?socket=%s", name, (&url.URL{Path: address}).EscapedPath())
	}
	return fmt.Sprintf("nbd://%s/%s", address, name)
}

// Quote returns a command line as a shell takes it.
func Quote(args []string) string {
	var words []string
	for _, a := range args {
		if a == "" || strings.Trim(a, plain) != "" {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// plain is what shells leave alone.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
