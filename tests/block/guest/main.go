// guest is the init of the guest in package block's test: it gives /dev/nbd0 to
// the NBD server that /config.json names, has the kernel read and write there,
// and prints one line: "ok" and the SHA-256 of what the disk should hold now, or
// what went wrong. If the disk is to be had over 9P, too, it writes and reads it
// both ways; then it prints "grow", and waits until the disk is larger.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"strata/tests/mount/qemu/inside"
)

// A Config is what /config.json holds.
type Config struct {
	Addr   string
	Export string
	Seed   uint64
	Count  int // operations
	Nine   *Nine
}

// A Nine is the same disk over 9P: a live one, that several may write to.
type Nine struct {
	Source  string // the server's address
	Options string // as for mount -t 9p -o
	Image   string // the directory of the image
}

// Requests of the kernel's driver, and of all block devices.
const (
	nbdSetSock       = 0xab00
	nbdSetBlkSize    = 0xab01
	nbdDoIt          = 0xab03
	nbdClearSock     = 0xab04
	nbdSetSizeBlocks = 0xab07
	nbdDisconnect    = 0xab08
	nbdSetFlags      = 0xab0a

	blkFlushBuffers = 0x1261
	blkDiscard      = 0x1277
	blkZeroOut      = 0x127f

	blockSize = 512
)

func main() {
	out, err := inside.Boot()
	if err == nil {
		var sum string
		if sum, err = work(out); err == nil {
			fmt.Fprintln(out, "ok", sum)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		if out != nil {
			fmt.Fprintln(out, "failed", err)
		}
	}
	inside.Reboot()
}

// connect shakes hands with the server, and returns the socket. While the server
// has not seen yet that the last client left, it closes the connection of another.
func connect(cfg *Config) (sock *os.File, size int64, flags uint16, err error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		sock, size, flags, err = handshake(cfg)
		if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) || time.Now().After(deadline) {
			return sock, size, flags, err
		}
	}
}

func handshake(cfg *Config) (sock *os.File, size int64, flags uint16, err error) {
	nc, err := net.DialTimeout("tcp", cfg.Addr, time.Minute)
	if err != nil {
		return nil, 0, 0, err
	}
	defer nc.Close()
	greeting := make([]byte, 18)
	if _, err := io.ReadFull(nc, greeting); err != nil {
		return nil, 0, 0, err
	}
	b := []byte{0, 0, 0, 3}
	b = append(b, "IHAVEOPT\x00\x00\x00\x01"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(cfg.Export)))
	if _, err := nc.Write(append(b, cfg.Export...)); err != nil {
		return nil, 0, 0, err
	}
	export := make([]byte, 10)
	if _, err := io.ReadFull(nc, export); err != nil {
		return nil, 0, 0, err
	}
	sock, err = nc.(*net.TCPConn).File()
	return sock, int64(binary.BigEndian.Uint64(export)), binary.BigEndian.Uint16(export[8:]), err
}

func ioctl(f *os.File, op, arg uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), op, arg); errno != 0 {
		return fmt.Errorf("ioctl %#x: %w", op, errno)
	}
	return nil
}

// rangeIoctl is ioctl for what takes a range.
func rangeIoctl(f *os.File, op uintptr, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	return ioctl(f, op, uintptr(unsafe.Pointer(&arg)))
}

func work(out io.Writer) (string, error) {
	b, err := os.ReadFile("/config.json")
	if err != nil {
		return "", err
	}
	var cfg Config
	if err := json.Unmarshal(b, &cfg); err != nil {
		return "", err
	}
	d, err := attach(&cfg)
	if err != nil {
		return "", err
	}
	want, err := exercise(d.disk, d.size, &cfg)
	if err == nil && cfg.Nine != nil {
		want, err = cut(d.disk, want)
	}
	if err = errors.Join(err, d.detach()); err != nil {
		return "", err
	}
	if cfg.Nine != nil {
		if want, err = both(&cfg, want); err != nil {
			return "", err
		}
		fmt.Fprintln(out, "grow")
		if want, err = grown(&cfg, want); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", sha256.Sum256(want)), nil
}

// A device is /dev/nbd0 while it is a server's.
type device struct {
	disk  *os.File
	size  int64
	ctl   *os.File
	sock  *os.File
	ended chan error
}

// attach gives /dev/nbd0 to the server.
func attach(cfg *Config) (*device, error) {
	sock, size, flags, err := connect(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	d := &device{sock: sock, size: size, ended: make(chan error, 1)}
	if d.ctl, err = os.OpenFile("/dev/nbd0", os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for _, set := range [][2]uintptr{{nbdSetBlkSize, blockSize}, {nbdSetSizeBlocks, uintptr(size / blockSize)}, {nbdSetFlags, uintptr(flags)}, {nbdSetSock, sock.Fd()}} {
		if err := ioctl(d.ctl, set[0], set[1]); err != nil {
			return nil, err
		}
	}
	go func() { d.ended <- ioctl(d.ctl, nbdDoIt, 0) }()
	for { // it has a size last
		if b, err := os.ReadFile("/sys/block/nbd0/size"); err == nil && string(bytes.TrimSpace(b)) == strconv.FormatInt(size/blockSize, 10) {
			break
		}
		select {
		case err := <-d.ended:
			return nil, fmt.Errorf("the device ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	d.disk, err = os.OpenFile("/dev/nbd0", os.O_RDWR, 0)
	return d, err
}

// detach takes the device from the server.
func (d *device) detach() error {
	d.disk.Close()
	if err := ioctl(d.ctl, nbdDisconnect, 0); err != nil {
		return err
	}
	<-d.ended // with EPIPE or without an error, as the kernel's version has it
	err := ioctl(d.ctl, nbdClearSock, 0)
	return errors.Join(err, d.ctl.Close(), d.sock.Close())
}

// Where cut has the one partition lie, in sectors.
const (
	partStart = 8
	partSize  = 20000
)

// cut writes a partition table.
func cut(disk *os.File, want []byte) ([]byte, error) {
	clear(want[:blockSize])
	e := want[446:]
	e[4] = 0x83
	binary.LittleEndian.PutUint32(e[8:], partStart)
	binary.LittleEndian.PutUint32(e[12:], partSize)
	want[510], want[511] = 0x55, 0xaa
	_, err := disk.WriteAt(want[:blockSize], 0)
	return want, errors.Join(err, disk.Sync())
}

// both mounts the disk over 9P, and writes it there and as a device, in turns;
// each time it reads what the other sees.
func both(cfg *Config, want []byte) ([]byte, error) {
	if err := os.MkdirAll("/mnt", 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount(cfg.Nine.Source, "/mnt", "9p", 0, cfg.Nine.Options); err != nil {
		return nil, fmt.Errorf("mount -t 9p -o %s %s: %w", cfg.Nine.Options, cfg.Nine.Source, err)
	}
	image := filepath.Join("/mnt", cfg.Nine.Image)
	partition := filepath.Join(image, "parts/1/data")
	for { // the server cuts the disk when the device has left it
		if _, err := os.Stat(partition); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	shared := *cfg
	shared.Export += "/shared"
	d, err := attach(&shared)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(image, "shared"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 2))
	for i := range cfg.Count / 4 {
		n := int64(1+rng.IntN(200)) * blockSize
		off := (partStart + rng.Int64N(partSize-n/blockSize)) * blockSize
		part := want[off : off+n]
		for j := range part {
			part[j] = byte(rng.Uint32())
		}
		writer, reader := d.disk, file
		if i%2 > 0 {
			writer, reader = file, d.disk
		}
		if _, err := writer.WriteAt(part, off); err != nil {
			return nil, err
		}
		if err := writer.Sync(); err != nil {
			return nil, err
		}
		if reader == d.disk { // it does not know that its pages are old
			if err := ioctl(d.disk, blkFlushBuffers, 0); err != nil {
				return nil, err
			}
		}
		p, err := os.Open(partition)
		if err != nil {
			return nil, err
		}
		for _, r := range []struct {
			f   *os.File
			off int64
		}{{reader, off}, {p, off - partStart*blockSize}} {
			got := make([]byte, n)
			if _, err := r.f.ReadAt(got, r.off); err != nil {
				return nil, err
			}
			if !bytes.Equal(got, part) {
				return nil, fmt.Errorf("%d: %s has not what %s has written", i, r.f.Name(), writer.Name())
			}
		}
		p.Close()
	}
	if err := errors.Join(file.Close(), d.detach()); err != nil {
		return nil, err
	}
	// Alone, the partition can be written to.
	p, err := os.OpenFile(partition, os.O_RDWR, 0)
	for errors.Is(err, unix.EBUSY) { // the server has not seen all leave
		time.Sleep(10 * time.Millisecond)
		p, err = os.OpenFile(partition, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	text := []byte(strings.Repeat("by v9fs ", 10000))
	copy(want[partStart*blockSize+777:], text)
	if _, err := p.WriteAt(text, 777); err != nil {
		return nil, err
	}
	return want, errors.Join(p.Sync(), p.Close(), unix.Unmount("/mnt", 0))
}

// grown waits until who connects sees a larger disk, and writes its new end.
func grown(cfg *Config, want []byte) ([]byte, error) {
	for {
		sock, size, _, err := connect(cfg)
		if err != nil {
			return nil, err
		}
		sock.Close()
		if size > int64(len(want)) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	d, err := attach(cfg)
	if err != nil {
		return nil, err
	}
	if end, err := d.disk.Seek(0, io.SeekEnd); err != nil || end != d.size {
		return nil, fmt.Errorf("the device is %d bytes long, the disk %d: %v", end, d.size, err)
	}
	want = append(want, make([]byte, d.size-int64(len(want)))...)
	got := make([]byte, d.size)
	if _, err := d.disk.ReadAt(got, 0); err != nil {
		return nil, err
	}
	if !bytes.Equal(got, want) {
		return nil, errors.New("a larger disk begins otherwise, or has something behind its old end")
	}
	end := want[d.size-4*blockSize:]
	copy(end, strings.Repeat("the end ", 4*blockSize/8))
	_, err = d.disk.WriteAt(end, d.size-4*blockSize)
	return want, errors.Join(err, d.disk.Sync(), d.detach())
}

// exercise does random things to the disk, and returns what it should hold.
func exercise(disk *os.File, size int64, cfg *Config) ([]byte, error) {
	want := make([]byte, size)
	if _, err := disk.ReadAt(want, 0); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	for i := range cfg.Count {
		n := int64(1+rng.IntN(1<<(1+rng.IntN(10)))) * blockSize
		off := rng.Int64N((size-n)/blockSize) * blockSize
		part := want[off : off+n]
		var err error
		op := strings.Fields("write write write read read discard zero sync forget")[rng.IntN(9)]
		switch op {
		case "write":
			for j := range part {
				part[j] = byte(rng.Uint32())
			}
			_, err = disk.WriteAt(part, off)
		case "read":
			got := make([]byte, n)
			if _, err = disk.ReadAt(got, off); err == nil && !bytes.Equal(got, part) {
				err = fmt.Errorf("%d bytes at %d differ", n, off)
			}
		case "discard":
			// What is there now is the server's business.
			if err = rangeIoctl(disk, blkDiscard, off, n); err == nil {
				_, err = disk.ReadAt(part, off)
			}
		case "zero":
			clear(part)
			err = rangeIoctl(disk, blkZeroOut, off, n)
		case "sync":
			err = disk.Sync()
		case "forget":
			if err = disk.Sync(); err == nil {
				err = ioctl(disk, blkFlushBuffers, 0)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("operation %d of seed %d, %s: %w", i, cfg.Seed, op, err)
		}
	}
	if err := disk.Sync(); err != nil {
		return nil, err
	}
	if err := ioctl(disk, blkFlushBuffers, 0); err != nil {
		return nil, err
	}
	got := make([]byte, size)
	if _, err := disk.ReadAt(got, 0); err != nil {
		return nil, err
	}
	if !bytes.Equal(got, want) {
		return nil, fmt.Errorf("in the end the disk of seed %d is another", cfg.Seed)
	}
	return want, nil
}
