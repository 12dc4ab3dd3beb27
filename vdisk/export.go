package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"strata/vdisk/qcow2"
)

// Export writes the disk to f, a regular file or a block device, in whose
// place nothing of what it held remains. In a file every block of zeros
// becomes a hole; its length becomes the disk's. A device must be at least as
// long as the disk, and is left as it was behind it. progress, if not nil, is
// called now and then with how many bytes of the disk, holes included, are
// done; calls do not overlap.
//
// Export does not sync f. After an error f holds a part of the disk.
func Export(ctx context.Context, im *Image, f *os.File, progress func(done int64)) error {
	if err := export(ctx, im, f, progress); err != nil {
		return fmt.Errorf("export image %v: %w", im.score, err)
	}
	return nil
}

// ExportQcow2 is Export into a qcow2 image, in f, a regular file, in whose
// place nothing of what it held remains. Clusters of zeros are left out. After
// an error f is no image.
func ExportQcow2(ctx context.Context, im *Image, f *os.File, progress func(done int64)) error {
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", f.Name())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		err = qcow2.Write(ctx, f, im, progress)
	}
	if err != nil {
		return fmt.Errorf("export image %v: %w", im.score, err)
	}
	return nil
}

// Stream writes the disk to w from its first byte to its last, holes as
// zeros.
func Stream(ctx context.Context, im *Image, w io.Writer) error {
	for i, r := range im.layout.Regions {
		if _, err := im.readers[i].Stream(ctx, w); err != nil {
			return fmt.Errorf("export image %v: region %s: %w", im.score, r.Name, err)
		}
	}
	return nil
}

func export(ctx context.Context, im *Image, f *os.File, progress func(int64)) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Mode().IsRegular() {
		// Truncating to nothing first makes it all one hole.
		if err := f.Truncate(0); err != nil {
			return err
		}
		if err := f.Truncate(im.Size()); err != nil {
			return err
		}
	} else if err := zeroHoles(ctx, im, f); err != nil {
		return err
	}
	for i, r := range im.layout.Regions {
		var tell func(int64)
		if progress != nil {
			tell = func(done int64) { progress(r.Start + min(done, r.Length)) }
		}
		if _, err := im.readers[i].Export(ctx, io.NewOffsetWriter(f, r.Start), tell); err != nil {
			return fmt.Errorf("region %s: %w", r.Name, err)
		}
	}
	return nil
}

// zeroHoles writes zeros to a device where the disk has holes.
func zeroHoles(ctx context.Context, im *Image, f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < im.Size() {
		return fmt.Errorf("%s: has %d bytes for a disk of %d", f.Name(), size, im.Size())
	}
	for off := int64(0); off < im.Size(); {
		start, end, err := im.NextData(ctx, off)
		if err == io.EOF {
			start, end = im.Size(), im.Size()
		} else if err != nil {
			return err
		}
		if err := zeroRange(ctx, f, off, start); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// zeroRange makes [off, end) of f zeros. The kernel does it where it can.
func zeroRange(ctx context.Context, f *os.File, off, end int64) error {
	if off == end {
		return nil
	}
	err := fallocate(f, off, end-off)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	zeros := make([]byte, min(1<<20, end-off))
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func fallocate(f *os.File, off, length int64) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	const mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	cerr := c.Control(func(fd uintptr) { err = unix.Fallocate(int(fd), mode, off, length) })
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}
