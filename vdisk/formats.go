package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"strata/vdisk/qcow2"
	"strata/vdisk/vmdk"
)

// A File is a Source in files that are to be closed.
type File interface {
	Source
	io.Closer
}

// FileOptions say how OpenFile opens a disk.
type FileOptions struct {
	// Format is raw, qcow2, vmdk, or a format of qemu-img. Empty means the one
	// that the file's name ends with, or else raw.
	Format string
	// Backing is a folder in which, and below which, the files may be that a
	// qcow2 image lies upon; empty means the one in which it is.
	Backing string
	// TempDir is where a disk is copied to that qemu-img has to read; empty means
	// os.TempDir.
	TempDir string
}

// formats are the formats of files with names that end so. None of them may
// lie upon another file that we would not look at first: an image is no reason
// to read whatever it names.
var formats = map[string]string{
	".qcow2": "qcow2",
	".vmdk":  "vmdk",
	".vhdx":  "vhdx",
	".vhd":   "vpc",
	".vdi":   "vdi",
}

// OpenFile opens the disk in a file, or a block device, for reading. Of a
// qcow2 image, or a streamOptimized VMDK, only what is used is read. Other
// formats are copied by qemu-img, if it is there, to a nameless raw file first.
//
// A raw disk that begins as an image does is refused if nobody says which of
// the two it is: what is on a disk is its guest's to choose, and an image can
// name other files.
func OpenFile(ctx context.Context, name string, opt FileOptions) (File, error) {
	format := opt.Format
	if format == "" {
		if format = formats[strings.ToLower(filepath.Ext(name))]; format == "" {
			format = "raw"
		}
	}
	switch format {
	case "raw":
		d, err := OpenDisk(name)
		if err == nil && opt.Format == "" {
			err = d.plain()
		}
		if err != nil {
			if d != nil {
				d.Close()
			}
			return nil, err
		}
		return d, nil
	case "qcow2":
		im, err := qcow2.Open(name, qcow2.Options{Raw: openLayer, Backing: opt.Backing})
		if err != nil {
			return nil, err
		}
		return im, nil
	case "vmdk":
		im, err := vmdk.Open(name)
		if err == nil {
			return im, nil
		}
		if opt.Format == "" || !isAnotherVMDK(name) {
			return nil, err
		}
	}
	d, err := convert(ctx, name, format, opt.TempDir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// openLayer opens a raw backing file.
func openLayer(f *os.File) (qcow2.Layer, error) {
	d, err := newDisk(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// plain returns an error if d begins as an image of another format.
func (d *Disk) plain() error {
	b := make([]byte, 512)
	n, err := d.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	b = b[:n]
	for _, known := range []struct {
		format string
		is     bool
	}{
		{"qcow2", qcow2.IsImage(b)},
		{"vmdk", vmdk.IsImage(b) || bytes.HasPrefix(b, []byte("# Disk DescriptorFile"))},
		{"vhdx", bytes.HasPrefix(b, []byte("vhdxfile"))},
		{"vpc", bytes.HasPrefix(b, []byte("conectix"))},
		{"vdi", len(b) > 0x44 && bytes.Equal(b[0x40:0x44], []byte{0x7f, 0x10, 0xda, 0xbe})},
		{"qed", bytes.HasPrefix(b, []byte("QED\x00"))},
	} {
		if known.is && d.regular {
			return fmt.Errorf("%s: looks like a %s image, but is not named so: say whether its format is %s or raw", d.f.Name(), known.format, known.format)
		}
	}
	return nil
}

// isAnotherVMDK tells whether a file is a VMDK of a kind that is not ours.
func isAnotherVMDK(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, 21)
	io.ReadFull(f, b)
	return string(b) == "# Disk DescriptorFile" || string(b[:4]) == "COWD"
}

// convert copies a disk to a nameless raw file by qemu-img.
func convert(ctx context.Context, name, format, dir string) (*Disk, error) {
	if strings.ContainsAny(format, ",=:") || strings.HasPrefix(format, "-") {
		return nil, fmt.Errorf("bad format %q", format)
	}
	program, err := exec.LookPath("qemu-img")
	if err != nil {
		return nil, fmt.Errorf("no qemu-img to read format %s with: %w", format, err)
	}
	// A name without a slash could be more than a name to it.
	if name, err = filepath.Abs(name); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "vdisk-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	cmd := exec.CommandContext(ctx, program, "convert", "-f", format, "-O", "raw", name, f.Name())
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		f.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errors.New(strings.TrimSpace("qemu-img: " + strings.TrimPrefix(said.String(), "qemu-img: ")))
	}
	d, err := newDisk(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}
