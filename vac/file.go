package vac

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
)

// A File is a file or directory of an archive. It is immutable; its methods
// may be called at once.
type File struct {
	// What the directory says of it. Qid lacks the offsets of the directories
	// above: see FullQid.
	meta.DirEntry

	archive   *Archive
	parent    *File // nil at the top
	depth     int   // directories above
	data      venti.Entry
	meta      venti.Entry // of directories
	qidOffset uint64      // of the directories above and, with a QidSpace, its own
	cookie    uint64      // of a file that ReadDir yielded
}

// Archive returns the archive that the file is in.
func (f *File) Archive() *Archive { return f.archive }

// Parent returns the directory that the file is in, or nil at the top.
func (f *File) Parent() *File { return f.parent }

// Cookie returns where in its directory a file is that ReadDir yielded: a
// number from 1 that rises from file to file.
func (f *File) Cookie() uint64 { return f.cookie }

// Path returns the names from the top, with slashes between; of the top
// directory it is ".".
func (f *File) Path() string {
	if f.parent == nil {
		return "."
	}
	var names []string
	for ; f.parent != nil; f = f.parent {
		names = append(names, f.Name)
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String()
}

// IsDir tells whether the file is a directory.
func (f *File) IsDir() bool { return f.Mode.IsDir() }

// FullQid returns a number that is unique in the archive, but for archives
// that plan9port's vac -a made, where days begin anew.
func (f *File) FullQid() uint64 { return f.Qid + f.qidOffset }

// Size returns how many bytes the file holds; of a directory it is 0.
func (f *File) Size() int64 {
	if f.IsDir() {
		return 0
	}
	return f.data.Size
}

// Data returns the entry of the contents; of a directory, that of its entry
// stream.
func (f *File) Data() venti.Entry { return f.data }

// Meta returns the entry of a directory's metadata stream.
func (f *File) Meta() venti.Entry { return f.meta }

// Open returns a reader of the contents, or of a directory's entry stream.
func (f *File) Open(cfg hashtree.ReaderConfig) (*hashtree.Reader, error) {
	r, err := hashtree.NewReader(f.archive.br, f.data, cfg)
	if err != nil {
		return nil, f.wrap(err)
	}
	return r, nil
}

// wrap adds the path to an error.
func (f *File) wrap(err error) error { return fmt.Errorf("%s: %w", f.Path(), err) }

// maxSmall bounds what is read of links and devices.
const maxSmall = 4096

// small returns the whole contents, which are not large.
func (f *File) small(ctx context.Context) ([]byte, error) {
	if f.data.Size > maxSmall {
		return nil, fmt.Errorf("%s: %v of %d bytes", f.Path(), f.Mode, f.data.Size)
	}
	r, err := f.Open(hashtree.ReaderConfig{})
	if err != nil {
		return nil, err
	}
	b := make([]byte, f.data.Size)
	if _, err := r.ReadAtContext(ctx, b, 0); err != nil && err != io.EOF {
		return nil, f.wrap(err)
	}
	return b, nil
}

// ErrDamagedLink is returned for the target of a symbolic link that is lost:
// plan9port's vac keeps its first 8 bytes.
var ErrDamagedLink = errors.New("target of the link is lost but for its first bytes")

// Link returns the target of a symbolic link, or with ErrDamagedLink what is
// left of it.
func (f *File) Link(ctx context.Context) (string, error) {
	b, err := f.small(ctx)
	if err != nil {
		return "", err
	}
	if i := bytes.IndexByte(b, 0); i >= 0 || len(b) == 0 {
		b = b[:max(i, 0)]
		return string(b), fmt.Errorf("%s: %w: %q", f.Path(), ErrDamagedLink, b)
	}
	return string(b), nil
}

// A Device is what a device's file stands for.
type Device struct {
	Block        bool // block device, or else character device
	Major, Minor uint32
}

// String returns d as it is stored: plan9port's vac has the minor number
// first.
func (d Device) String() string {
	kind := 'c'
	if d.Block {
		kind = 'b'
	}
	return fmt.Sprintf("%c %d %d", kind, d.Minor, d.Major)
}

// Device returns what a device's file stands for.
func (f *File) Device(ctx context.Context) (Device, error) {
	b, err := f.small(ctx)
	if err != nil {
		return Device{}, err
	}
	var kind rune
	var d Device
	if _, err := fmt.Sscanf(string(b), "%c %d %d", &kind, &d.Minor, &d.Major); err != nil || kind != 'b' && kind != 'c' {
		return Device{}, fmt.Errorf("%s: %q is no device", f.Path(), b)
	}
	d.Block = kind == 'b'
	return d, nil
}

// Lookup returns the file at a path below a directory, in which empty
// elements and "." mean nothing. ErrNotExist of package fs says that there is
// none.
func (f *File) Lookup(ctx context.Context, name string) (*File, error) {
	for elem := range strings.SplitSeq(name, "/") {
		if elem == "" || elem == "." {
			continue
		}
		var err error
		if f, err = f.Walk(ctx, elem); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// child makes the File of an entry of f and its two entries; m is used only
// for directories.
func (f *File) child(d meta.DirEntry, data, m venti.Entry) (*File, error) {
	c := &File{DirEntry: d, archive: f.archive, parent: f, depth: f.depth + 1, data: data, meta: m, qidOffset: f.qidOffset}
	if d.QidSpace {
		c.qidOffset += d.QidOffset
	}
	switch {
	case !data.Active() || data.Gen != d.Gen:
		return nil, c.wrap(fmt.Errorf("%w: slot %d holds another file, or none", meta.ErrCorrupt, d.Entry))
	case data.Dir() != d.Mode.IsDir():
		return nil, c.wrap(fmt.Errorf("%w: slot %d does not hold a %v", meta.ErrCorrupt, d.Entry, d.Mode))
	case !c.IsDir():
		return c, nil
	case !m.Active() || m.Dir() || m.Gen != d.MGen:
		return nil, c.wrap(fmt.Errorf("%w: slot %d holds other metadata, or none", meta.ErrCorrupt, d.MEntry))
	case c.depth > maxDepth:
		return nil, fmt.Errorf("%.100s...: %w: more than %d directories deep", c.Path(), meta.ErrCorrupt, maxDepth)
	}
	if m.Size > 0 {
		for up := f; up != nil; up = up.parent {
			if up.meta.Score == m.Score && up.data.Score == data.Score {
				return nil, c.wrap(fmt.Errorf("%w: directory holds itself", meta.ErrCorrupt))
			}
		}
	}
	return c, nil
}

// maxDepth bounds how many directories lie in each other. Linux has no
// limit, but who makes so many?
const maxDepth = 1 << 12

// ValidName tells whether a name can be one of a file in a directory.
func ValidName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

var errNotDir = fmt.Errorf("not a directory: %w", fs.ErrInvalid)
