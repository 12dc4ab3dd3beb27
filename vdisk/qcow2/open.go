package qcow2

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"strata/vdisk/internal/imagefile"
)

// maxChain is how many images may lie upon one another.
const maxChain = 200

// Options say how an image is opened.
type Options struct {
	// Raw opens a file as a raw disk, for backing files that are. It owns f from
	// then on, also if it fails.
	Raw func(f *os.File) (Layer, error)

	// Backing is a folder in which, and below which, backing files may be,
	// instead of the one in which the image is.
	Backing string
}

// IsImage tells whether data, the beginning of a file, is that of a qcow2
// image.
func IsImage(data []byte) bool { return strings.HasPrefix(string(data), magic) }

// Open opens an image for reading, and the files that it lies upon.
func Open(name string, opt Options) (*Image, error) {
	dir := opt.Backing
	if dir == "" {
		dir = filepath.Dir(name)
	}
	// Names of backing files are relative to the file that has them.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	home, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		f.Close()
		return nil, err
	}
	if home, err = filepath.EvalSymlinks(home); err != nil {
		f.Close()
		return nil, err
	}
	c := &chain{root: root, top: abs, raw: opt.Raw}
	return c.open(f, home)
}

// A chain is a chain of images that is being opened.
type chain struct {
	root *os.Root
	top  string // path of root
	raw  func(f *os.File) (Layer, error)
	seen []os.FileInfo
}

// open opens the image in f, which it owns, in the folder dir.
func (c *chain) open(f *os.File, dir string) (im *Image, err error) {
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	for _, other := range c.seen {
		if os.SameFile(fi, other) {
			return nil, errors.New("the image lies upon itself")
		}
	}
	if c.seen = append(c.seen, fi); len(c.seen) > maxChain {
		return nil, fmt.Errorf("more than %d images upon one another", maxChain)
	}
	if im, err = newImage(f, fi.Size()); err != nil {
		return nil, err
	}
	im.file = imagefile.Watch(f, fi)
	if im.header.backing == "" {
		return im, nil
	}
	if im.backing, err = c.openBacking(&im.header, dir); err != nil {
		return nil, fmt.Errorf("backing file %q: %w", im.header.backing, err)
	}
	return im, nil
}

// openBacking opens what an image in the folder dir lies upon.
func (c *chain) openBacking(h *header, dir string) (Layer, error) {
	name := h.backing
	switch {
	case h.format == "":
		return nil, errors.New("the image does not say which format it is of (qemu-img rebase -u -F FORMAT adds that)")
	case h.format != "raw" && h.format != "qcow2":
		return nil, fmt.Errorf("format %q is not supported here (convert the image with qemu-img)", h.format)
	case h.format == "raw" && c.raw == nil:
		return nil, errors.New("raw backing files are not supported here")
	case strings.HasPrefix(name, "json:") || strings.Contains(name, "://") || strings.Contains(name, "\x00"):
		return nil, errors.New("not the name of a file")
	}
	name = strings.TrimPrefix(name, "file:")
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	} else if d, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
		name = filepath.Join(d, filepath.Base(name)) // root's path has none either
	}
	rel, err := filepath.Rel(c.top, name)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("lies outside of %s", c.top)
	}
	// A pipe that somebody puts there must not stop us.
	f, err := c.root.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if h.format == "raw" {
		return c.raw(f)
	}
	return c.open(f, path.Dir(filepath.Join(c.top, rel)))
}
