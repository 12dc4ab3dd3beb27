// guest is the init of the guest in package block's test: it gives /dev/nbd0 to
// the NBD server that /config.json names, has the kernel read and write there,
// and prints one line: "ok" and the SHA-256 of what the disk should hold now, or
// what went wrong.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
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
}

// Requests of the kernel's driver, and of all block devices.
const (
	nbdSetSock       = 0xab00
	nbdSetBlkSize    = 0xab01
	nbdDoIt          = 0xab03
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
		if sum, err = work(); err == nil {
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

// connect shakes hands with the server, and returns the socket.
func connect(cfg *Config) (sock *os.File, size int64, flags uint16, err error) {
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

func work() (string, error) {
	b, err := os.ReadFile("/config.json")
	if err != nil {
		return "", err
	}
	var cfg Config
	if err := json.Unmarshal(b, &cfg); err != nil {
		return "", err
	}
	sock, size, flags, err := connect(&cfg)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	dev, err := os.OpenFile("/dev/nbd0", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	for _, set := range [][2]uintptr{{nbdSetBlkSize, blockSize}, {nbdSetSizeBlocks, uintptr(size / blockSize)}, {nbdSetFlags, uintptr(flags)}, {nbdSetSock, sock.Fd()}} {
		if err := ioctl(dev, set[0], set[1]); err != nil {
			return "", err
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- ioctl(dev, nbdDoIt, 0) }()
	for {
		if b, err := os.ReadFile("/sys/block/nbd0/pid"); err == nil && len(bytes.TrimSpace(b)) > 0 {
			break
		}
		select {
		case err := <-ended:
			return "", fmt.Errorf("the device ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	disk, err := os.OpenFile("/dev/nbd0", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	want, err := exercise(disk, size, &cfg)
	if err != nil {
		return "", err
	}
	disk.Close()
	if err := ioctl(dev, nbdDisconnect, 0); err != nil {
		return "", err
	}
	<-ended // with EPIPE or without an error, as the kernel's version has it
	sum := sha256.Sum256(want)
	return fmt.Sprintf("%x", sum), nil
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
