package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"strata/internal/ninep"
	"strata/venti"
)

// TreeConfig holds the options of a Tree.
type TreeConfig struct {
	// Files is a directory of the host to be seen, read-only, as /files.
	// Without it there is no /files.
	Files string
	// Images is how many images are kept open; 0 means 32.
	Images int
}

// A Tree shows images over 9P, read-only (it is a ninep.FS):
//
//	/status                            what is open, and where there is NBD
//	/score/<type:score>/disk           the disk
//	                    score          what it was found by, as text
//	                    info           its layout, as text
//	                    parts/<n>/data partition n; of a disk without a table, 0 is all of it
//	                              type the type of the file system in it
//	                              fs/  its files, of ext2, ext3, ext4, FAT, exFAT and NTFS
//	                    parts/<n>.<volume>/...  a logical volume in partition n
//	                              info what else is known of it
//	/files/...                         a directory of the host
//
// Nothing is listed in /score: any score can be walked to. A regular file of
// /files whose name ends in .vdisk and which holds a score, as text, reads as
// the raw disk that the score names.
//
// The qids of what is found by score are made from the score and are the
// same in every server for ever.
type Tree struct {
	images *images
	files  *os.Root // nil without /files
	more   []func(user string) map[string]ninep.Node
	nbd    []string // lines of /status: where there is NBD
	reads  atomic.Int64
	bytes  atomic.Int64
}

const defaultImages = 32

// NewTree returns the tree of the images that br has. The tree uses br until
// Close.
func NewTree(br venti.BlockReader, cfg TreeConfig) (*Tree, error) {
	if cfg.Images <= 0 {
		cfg.Images = defaultImages
	}
	t := &Tree{images: newImages(br, cfg.Images)}
	if cfg.Files != "" {
		root, err := os.OpenRoot(cfg.Files)
		if err != nil {
			return nil, err
		}
		t.files = root
	}
	return t, nil
}

// Mount adds what f returns to the root directory, for each client that
// attaches. It is called before the tree is served.
func (t *Tree) Mount(f func(user string) map[string]ninep.Node) { t.more = append(t.more, f) }

// Close lets go of the directory of the host. The tree must not be served
// any more.
func (t *Tree) Close() error {
	if t.files != nil {
		return t.files.Close()
	}
	return nil
}

// Attach returns the root of the tree, the only one, to anybody.
func (t *Tree) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	if aname != "" && aname != "/" {
		return nil, ninep.ErrNotExist
	}
	children := map[string]ninep.Node{
		"score":  ninep.LookupDir(dirStat("score", "score"), t.walkScore, nil),
		"status": ninep.NewText(fileStat("status", "status"), t.status),
	}
	if t.files != nil {
		files := &hostNode{tree: t, name: "files", rel: "."}
		h, err := files.open()
		if err != nil {
			return nil, err
		}
		h.f.Close()
		files.qid = h.qid
		children["files"] = files
	}
	for _, f := range t.more {
		maps.Copy(children, f(user))
	}
	return ninep.NewDir(dirStat("/", "/"), children), nil
}

// dirStat and fileStat describe what is not of the host. id tells it from
// everything else.
func dirStat(name string, id ...string) ninep.Dir {
	d := fileStat(name, id...)
	d.Mode = ninep.ModeDir | 0o555
	return d
}

func fileStat(name string, id ...string) ninep.Dir {
	return ninep.Dir{Name: name, Mode: 0o444, Qid: ninep.Qid{Path: ninep.QidPath(strings.Join(id, "/"))}}
}

// status is the text of /status.
func (t *Tree) status(context.Context) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "reads %d\nbytes %d\n", t.reads.Load(), t.bytes.Load())
	b.WriteString(strings.Join(t.nbd, ""))
	for _, im := range t.images.opened() {
		fmt.Fprintf(&b, "open %s:%v %d\n", Printable(im.root.Type), im.score, im.Size())
	}
	return b.String(), nil
}

// walkScore opens the image that an element of a path under /score names.
func (t *Tree) walkScore(ctx context.Context, name string) (ninep.Node, error) {
	kind, score, err := venti.ParseTypedScore(name)
	if err != nil {
		return nil, ninep.ErrNotExist
	}
	im, err := t.images.open(ctx, score)
	if err != nil {
		return nil, imageError(err)
	}
	if kind != "" && kind != im.root.Type {
		return nil, ninep.ErrNotExist
	}
	return t.imageDir(name, score.String(), im), nil
}

// ImageDir returns the directory of the image with a score, as it is below
// /score, for another place in the tree. place, which tells that from all others,
// is what qids are made from, together with the score.
func (t *Tree) ImageDir(ctx context.Context, name, place string, score venti.Score) (ninep.Node, error) {
	im, err := t.images.open(ctx, score)
	if err != nil {
		return nil, imageError(err)
	}
	return t.imageDir(name, place+"/"+score.String(), im), nil
}

// imageError is what a client is told when an image does not open. That it
// is not there, that it is something else, and that the archive cannot be
// asked are three things.
func imageError(err error) error {
	switch {
	case errors.Is(err, ErrNotImage):
		return &ninep.Error{Text: err.Error(), Errno: syscall.EINVAL}
	case errors.Is(err, venti.ErrNotFound):
		return ninep.ErrNotExist
	}
	return err
}

// imageDir returns the directory of an image; id is what its qid is made from,
// and those of what is in it begin with.
func (t *Tree) imageDir(name, id string, im *Image) ninep.Node {
	parts := make(map[string]ninep.Node)
	for n, p := range im.layout.Places() {
		parts[n] = t.partDir(im, n, id, im.contents(p), p.Region)
	}
	return ninep.NewDir(dirStat(name, id), map[string]ninep.Node{
		"disk":  t.dataFile(fileStat("disk", id, "disk"), im),
		"info":  textFile(fileStat("info", id, "info"), func(w io.Writer) { im.WriteInfo(w) }),
		"score": textFile(fileStat("score", id, "score"), func(w io.Writer) { fmt.Fprintf(w, "%s:%v\n", im.root.Type, im.score) }),
		"parts": ninep.NewDir(dirStat("parts", id, "parts"), parts),
	})
}

// partDir returns the directory of a partition or logical volume, whose first
// region is the i-th.
func (t *Tree) partDir(im *Image, n, id string, data contents, i int) ninep.Node {
	r := &im.layout.Regions[i]
	nodes := map[string]ninep.Node{
		"data": t.dataFile(fileStat("data", id, n, "data"), data),
		"type": textFile(fileStat("type", id, n, "type"), func(w io.Writer) { fmt.Fprintln(w, r.Type()) }),
		"info": textFile(fileStat("info", id, n, "info"), r.WriteInfo),
	}
	if r.HasFiles() {
		nodes["fs"] = t.filesDir(im, n, id+"/"+n+"/fs")
	}
	return ninep.NewDir(dirStat(n, id, n), nodes)
}

// textFile returns a file of the text that write, which cannot fail, writes.
func textFile(d ninep.Dir, write func(w io.Writer)) ninep.Node {
	return ninep.NewText(d, func(context.Context) (string, error) {
		var b strings.Builder
		write(&b)
		return b.String(), nil
	})
}

// contents is an image or a region of one.
type contents interface {
	Size() int64
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
}

func (t *Tree) dataFile(d ninep.Dir, data contents) ninep.Node {
	d.Length = data.Size()
	d.Qid.Vers = 1 // and never another, so that clients may keep what they read
	return ninep.NewFile(d, &dataReader{t, data})
}

// A dataReader reads from the archive for clients. It is also the handle of
// a file of the host that names an image.
type dataReader struct {
	tree *Tree
	data contents
}

func (r *dataReader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := r.data.ReadAtContext(ctx, p, off)
	r.tree.reads.Add(1)
	r.tree.bytes.Add(int64(n))
	if err != nil && err != io.EOF {
		// A block that is missing is not a file that does not exist.
		return n, fmt.Errorf("venti i/o error: %w", err)
	}
	return n, err
}

func (r *dataReader) Close(context.Context) error { return nil }
