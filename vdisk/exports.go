package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"path/filepath"
	"strings"

	"strata/internal/netaddr"
	"strata/vdisk/nbd"
	"strata/venti"
)

// Bounds of what is listed of /files.
const (
	maxListed = 1000
	maxLooked = 100000 // names looked at
)

// Exports shows the disks of the tree over NBD, read-only, under the names
// that they have in it:
//
//	vdisk:SCORE, SCORE, score/SCORE   any disk, by its score
//	files/web.vdisk                   the disk whose score is in a file
//	.../parts/1                       a partition of it
//
// The names of the tree's files, .../disk and .../parts/1/data, do too. Only
// files are listed.
func (t *Tree) Exports() nbd.Exports { return treeExports{t} }

type treeExports struct{ tree *Tree }

// AnnounceNBD has /status tell of an address at which disks are had over NBD:
// how it was written, and what announcing it gave. writes tells whether live disks
// can be written to there. It is called before the tree is served.
func (t *Tree) AnnounceNBD(written string, addr net.Addr, writes bool) {
	may := "read-only"
	if writes {
		may = "read-write"
	}
	text := netaddr.Announced(addr)
	if addr.Network() == "unix" {
		path, err := filepath.Abs(addr.String())
		if err != nil {
			return // nobody could find it
		}
		text = "unix!" + path
	} else if a, err := netaddr.Parse(written, nbd.Service); err == nil && a.Network == "tls" {
		text = "tls" + strings.TrimPrefix(text, addr.Network())
	}
	t.nbd = append(t.nbd, fmt.Sprintf("nbd %s %s\n", text, may))
}

// Open implements nbd.Exports.
func (x treeExports) Open(ctx context.Context, name string) (*nbd.Export, error) {
	im, rest, err := x.image(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", name, err)
	}
	data, what := diskContents(im), "disk"
	switch words := strings.Split(rest, "/"); {
	case rest == "" || rest == "disk":
	case words[0] == "parts" && (len(words) == 2 || len(words) == 3 && words[2] == "data"):
		i, ok := im.layout.Parts()[words[1]]
		if !ok {
			return nil, fmt.Errorf("export %q: the disk has no partition %s: %w", name, words[1], fs.ErrNotExist)
		}
		data, what = im.partContents(i), "partition "+words[1]
	default:
		return nil, fmt.Errorf("export %q: %w", name, fs.ErrNotExist)
	}
	return &nbd.Export{
		Name:        name,
		Description: fmt.Sprintf("%s of %s:%v", what, Printable(im.root.Type), im.score),
		Disk:        &exportDisk{dataReader{x.tree, data}, data},
		ReadOnly:    true,
	}, nil
}

// image opens the image that an export's name begins with, and returns the
// rest of the name.
func (x treeExports) image(ctx context.Context, name string) (im *Image, rest string, err error) {
	first, rest, _ := strings.Cut(name, "/")
	switch first {
	case "files":
		text, rest, err := x.fileScore(rest)
		if err != nil {
			return nil, "", err
		}
		im, err := x.tree.openText(ctx, text)
		return im, rest, err
	case "score":
		first, rest, _ = strings.Cut(rest, "/")
	}
	if _, _, err := venti.ParseTypedScore(first); err != nil {
		return nil, "", fs.ErrNotExist
	}
	im, err = x.tree.openText(ctx, first)
	if errors.Is(err, venti.ErrNotFound) {
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	return im, rest, err
}

// fileScore returns the score in the file that a path begins with, and the
// rest of the path.
func (x treeExports) fileScore(name string) (text, rest string, err error) {
	end := strings.Index(name+"/", ImageSuffix+"/")
	if end < 0 || x.tree.files == nil {
		return "", "", fs.ErrNotExist
	}
	end += len(ImageSuffix)
	file, rest := name[:end], strings.TrimPrefix(name[end:], "/")
	if !fs.ValidPath(file) {
		return "", "", fs.ErrNotExist
	}
	h, err := (&hostNode{tree: x.tree, name: path.Base(file), rel: file}).open()
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	h.f.Close()
	if h.score == "" {
		return "", "", fmt.Errorf("holds no score: %w", fs.ErrNotExist)
	}
	return h.score, rest, nil
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// List implements nbd.Exports.
func (x treeExports) List(ctx context.Context) ([]nbd.Listing, error) {
	if x.tree.files == nil {
		return nil, nil
	}
	var list []nbd.Listing
	looked := 0
	err := fs.WalkDir(x.tree.files.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if looked++; looked > maxLooked || len(list) == maxListed {
			return errEnough
		}
		if err != nil || ctx.Err() != nil {
			return ctx.Err() // what cannot be read is not listed
		}
		if !strings.HasSuffix(name, ImageSuffix) || d.IsDir() {
			return nil
		}
		if text, _, err := x.fileScore(name); err == nil {
			list = append(list, nbd.Listing{Name: "files/" + name, Description: "disk of " + text})
		}
		return nil
	})
	if err != nil && err != errEnough {
		return nil, fmt.Errorf("list files: %w", err)
	}
	return list, nil
}

// diskContents is an image or a region of one, as NBD needs it.
type diskContents interface {
	contents
	NextData(ctx context.Context, off int64) (start, end int64, err error)
	ReadCached(p []byte, off int64) (n int, ok bool)
}

// An exportDisk is the nbd.Disk of what is in the archive.
type exportDisk struct {
	dataReader
	data diskContents
}

func (d *exportDisk) Size() int64 { return d.data.Size() }

func (d *exportDisk) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	start, end, err = d.data.NextData(ctx, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("venti i/o error: %w", err)
	}
	return start, end, err
}

func (d *exportDisk) ReadCached(p []byte, off int64) (n int, ok bool) {
	if n, ok = d.data.ReadCached(p, off); ok {
		d.tree.reads.Add(1)
		d.tree.bytes.Add(int64(n))
	}
	return n, ok
}
