package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"strata/internal/ninep"
	"strata/vdisk"
)

// Mount adds the images to what t serves:
//
//	/ctl                                    takes commands: see help
//	/images/<path>/disk                     the disk, to be read and written
//	               shared                   the same, for several who write at once
//	               ctl                      takes the commands of the image, without its name
//	               info                     how it is cut, and its state
//	               score                    of its last snapshot
//	               parts/<n>/data           a partition of it, to be read and written
//	                         type, info
//	                         fs/             its files, to be read, as the disk is now
//	               snap/<yyyy>/<mmdd[.n]>/  a snapshot, as it is below /score
//	               tag/<tag>/               one that has a name
//
// A command is a line of its own in a write. What it has to say can be read, from
// the same opening of the file or, by the same client, from a later one; of a
// command that failed it is why.
//
// Whoever is nobody may only read.
func Mount(t *vdisk.Tree, c *Catalogue) {
	var attached atomic.Int64
	t.Mount(func(user string) map[string]ninep.Node {
		v := &view{c: c, user: user, by: fmt.Sprintf("%s over 9P (%d)", user, attached.Add(1)), tree: t}
		return map[string]ninep.Node{
			"ctl":    &ctlNode{v: v, id: "ctl"},
			"images": v.dir("images", ""),
		}
	})
}

// A view is the images as one client sees them.
type view struct {
	c    *Catalogue
	user string
	by   string // as a writer
	tree *vdisk.Tree

	mu     sync.Mutex // guards what follows
	result string     // of the client's last command
}

func (v *view) mayWrite() bool { return v.user != ninep.NoUser && v.user != "" }

// id returns the path of a qid. What is below an image begins with the number
// of its directory, which is never another's.
func id(parts ...any) uint64 { return ninep.QidPath("live/" + fmt.Sprint(parts...)) }

func (v *view) file(name string, mode ninep.Mode, path uint64) ninep.Dir {
	return ninep.Dir{Name: name, Mode: mode, Qid: ninep.Qid{Path: path}, UID: v.c.cfg.User, GID: v.c.cfg.User}
}

// fullError returns an error that a client sees all of.
func fullError(err error) error {
	var e *ninep.Error
	errno := syscall.EIO
	if errors.As(err, &e) {
		errno = e.Errno
	}
	return &ninep.Error{Text: err.Error(), Errno: errno}
}

// dir returns a directory of the catalogue.
func (v *view) dir(name, path string) ninep.Node {
	lookup := func(ctx context.Context, elem string) (ninep.Node, error) {
		if !isElement(elem) {
			return nil, ninep.ErrNotExist
		}
		child := strings.TrimPrefix(path+"/"+elem, "/")
		f, err := v.c.host.walk(ctx, top+"/"+child)
		if err != nil {
			return nil, err
		}
		qid := f.Qid()
		f.Close(ctx)
		if !qid.Dir() {
			return nil, ninep.ErrNotExist
		}
		is, err := v.c.isImage(ctx, top+"/"+child)
		switch {
		case err != nil:
			return nil, err
		case is:
			return v.imageDir(elem, child, qid.Path), nil
		}
		return v.dir(elem, child), nil
	}
	list := func(ctx context.Context) ([]ninep.Dir, error) {
		entries, err := v.c.host.list(ctx, top+"/"+path)
		if err != nil {
			return nil, err
		}
		var all []ninep.Dir
		for _, e := range entries {
			if !e.Qid.Dir() || !isElement(e.Name) {
				continue
			}
			n, err := lookup(ctx, e.Name)
			if errors.Is(err, ninep.ErrNotExist) {
				continue // gone meanwhile
			}
			if err != nil {
				return nil, err
			}
			d, err := n.Stat(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, d)
		}
		return all, nil
	}
	return ninep.LookupDir(v.file(name, 0o555, id("dir ", path)), lookup, list)
}

// imageDir returns the directory of an image, whose number in the file system
// that is.
func (v *view) imageDir(name, image string, number uint64) ninep.Node {
	c := v.c
	text := func(what string, write func(ctx context.Context) (string, error)) ninep.Node {
		return ninep.NewText(v.file(what, 0o444, id(number, " ", what)), write)
	}
	parts := func(ctx context.Context) (map[string]ninep.Node, error) {
		l, err := c.Layout(ctx, image)
		if err != nil {
			return nil, err
		}
		nodes := make(map[string]ninep.Node)
		for n, p := range l.Places() {
			nodes[n] = v.partDir(n, image, number, l.Regions[p.Region], p)
		}
		return nodes, nil
	}
	return ninep.NewDir(v.file(name, 0o555, id(number)), map[string]ninep.Node{
		"ctl":    &ctlNode{v: v, image: image, id: fmt.Sprint(number, " ctl")},
		"disk":   &diskNode{v: v, image: image, name: "disk", path: id(number, " disk")},
		"shared": &diskNode{v: v, image: image, name: "shared", path: id(number, " shared"), shared: true},
		"info":   text("info", func(ctx context.Context) (string, error) { return c.info(ctx, image) }),
		"score": text("score", func(ctx context.Context) (string, error) {
			list, err := c.Log(ctx, image)
			if err != nil || len(list) == 0 {
				return "", err
			}
			return fmt.Sprintf("vdisk:%v\n", list[len(list)-1].Score), nil
		}),
		"parts": v.made(v.file("parts", 0o555, id(number, " parts")), parts),
		"snap":  v.made(v.file("snap", 0o555, id(number, " snap")), func(ctx context.Context) (map[string]ninep.Node, error) { return v.years(ctx, image, number) }),
		"tag":   v.made(v.file("tag", 0o555, id(number, " tag")), func(ctx context.Context) (map[string]ninep.Node, error) { return v.tags(ctx, image, number) }),
	})
}

// made returns a directory whose children are made when they are looked for.
func (v *view) made(d ninep.Dir, children func(ctx context.Context) (map[string]ninep.Node, error)) ninep.Node {
	lookup := func(ctx context.Context, name string) (ninep.Node, error) {
		nodes, err := children(ctx)
		if err != nil {
			return nil, err
		}
		if n := nodes[name]; n != nil {
			return n, nil
		}
		return nil, ninep.ErrNotExist
	}
	return ninep.LookupDir(d, lookup, func(ctx context.Context) ([]ninep.Dir, error) {
		nodes, err := children(ctx)
		if err != nil {
			return nil, err
		}
		var list []ninep.Dir
		for name, n := range nodes {
			d, err := n.Stat(ctx)
			if err != nil {
				return nil, err
			}
			d.Name = name
			list = append(list, d)
		}
		return list, nil
	})
}

func (v *view) partDir(n, image string, number uint64, r vdisk.Region, p vdisk.Place) ninep.Node {
	text := func(what string, write func(w io.Writer) error) ninep.Node {
		return ninep.NewText(v.file(what, 0o444, id(number, " ", n, " ", what)), func(context.Context) (string, error) {
			var b strings.Builder
			err := write(&b)
			return b.String(), err
		})
	}
	nodes := map[string]ninep.Node{
		"type": text("type", func(w io.Writer) error { _, err := fmt.Fprintln(w, r.Type()); return err }),
		"info": text("info", func(w io.Writer) error { r.WriteInfo(w); return nil }),
	}
	if len(p.Runs) == 1 {
		nodes["data"] = &diskNode{v: v, image: image, name: "data", path: id(number, " ", n, " data"), start: p.Runs[0].Off, length: p.Runs[0].Len}
	}
	if r.HasFiles() {
		nodes["fs"] = v.filesDir(image, n, number)
	}
	return ninep.NewDir(v.file(n, 0o555, id(number, " ", n)), nodes)
}

// A lazyDir is the directory of a snapshot, which is opened when it is looked
// into: a listing of a year must not open the images of all its days.
type lazyDir struct {
	ninep.Node
	open func(ctx context.Context) (ninep.Node, error)
}

func (n *lazyDir) Walk(ctx context.Context, name string) (ninep.Node, error) {
	d, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	return d.Walk(ctx, name)
}

func (n *lazyDir) Open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	d, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	return d.Open(ctx, mode)
}

// snapshotDir returns the directory of a snapshot in the directory where.
func (v *view) snapshotDir(where, name string, number uint64, s Snapshot) ninep.Node {
	place := fmt.Sprint("live/", number, " ", where, "/", name)
	d := v.file(name, 0o555, ninep.QidPath(place+"/"+s.Score.String()))
	d.Mtime = s.Time
	return &lazyDir{ninep.NewDir(d, nil), func(ctx context.Context) (ninep.Node, error) {
		return v.tree.ImageDir(ctx, name, place, s.Score)
	}}
}

func (v *view) tags(ctx context.Context, image string, number uint64) (map[string]ninep.Node, error) {
	list, err := v.c.Log(ctx, image)
	nodes := make(map[string]ninep.Node)
	for _, s := range list {
		if s.Tag != "" {
			nodes[s.Tag] = v.snapshotDir("tag", s.Tag, number, s)
		}
	}
	return nodes, err
}

func (v *view) years(ctx context.Context, image string, number uint64) (map[string]ninep.Node, error) {
	list, err := v.c.Log(ctx, image)
	years := make(map[string]map[string]ninep.Node)
	for _, s := range list {
		year, day, _ := strings.Cut(s.Name, "/")
		if years[year] == nil {
			years[year] = make(map[string]ninep.Node)
		}
		years[year][day] = v.snapshotDir(year, day, number, s)
	}
	nodes := make(map[string]ninep.Node)
	for year, days := range years {
		nodes[year] = ninep.NewDir(v.file(year, 0o555, id(number, " year ", year)), days)
	}
	return nodes, err
}

// A diskNode is a live disk, or a partition of one: length bytes at start, or
// all if that is 0. It is known by the image's name.
type diskNode struct {
	v             *view
	image, name   string
	path          uint64
	shared        bool // others who write share it, too
	start, length int64
}

// open opens the image.
func (n *diskNode) open(ctx context.Context, write bool) (*Disk, error) {
	return n.v.c.Disk(ctx, n.image, OpenOptions{Write: write, By: n.v.by, Shared: n.shared})
}

// Qid implements ninep.Node. The version is that of what is open, if it is.
func (n *diskNode) Qid() ninep.Qid {
	return ninep.Qid{Path: n.path, Vers: n.v.c.version(n.image)}
}

// version returns a number that changes with what is written to an image.
func (c *Catalogue) version(name string) uint32 {
	c.mu.Lock()
	im := c.images[name]
	c.mu.Unlock()
	if im == nil {
		return 0
	}
	return im.now()
}

// Walk implements ninep.Node.
func (n *diskNode) Walk(context.Context, string) (ninep.Node, error) { return nil, ninep.ErrNotDir }

// Stat implements ninep.Node.
func (n *diskNode) Stat(ctx context.Context) (ninep.Dir, error) {
	d, err := n.open(ctx, false)
	if err != nil {
		return ninep.Dir{}, err
	}
	defer d.Close(ctx)
	dir := n.v.file(n.name, 0o644, n.path)
	if dir.Length = n.length; dir.Length == 0 {
		dir.Length = d.Size()
	}
	dir.Qid = n.Qid()
	return dir, nil
}

// Wstat implements ninep.Wstater: a disk keeps its length, and what programs do
// to the times and the length of a file that they write anew is let pass.
func (n *diskNode) Wstat(ctx context.Context, ch ninep.Change) error {
	switch {
	case !n.v.mayWrite():
		return ninep.ErrPermission
	case ch.Name != nil, ch.Mode != nil, ch.UID != nil, ch.GID != nil:
		return ninep.ErrWstat
	case ch.Length != nil && *ch.Length != 0:
		d, err := n.Stat(ctx)
		if err == nil && d.Length != *ch.Length {
			err = ninep.ErrWstat
		}
		return err
	}
	return nil
}

// Open implements ninep.Node.
func (n *diskNode) Open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	switch {
	case mode&3 == ninep.OEXEC:
		return nil, ninep.ErrPermission
	case mode.Writes() && !n.v.mayWrite():
		return nil, ninep.ErrPermission
	}
	d, err := n.open(ctx, mode.Writes())
	if err != nil {
		return nil, fullError(err)
	}
	h := &diskHandle{d, n.start, n.length}
	if h.length == 0 {
		h.length = d.Size()
	}
	if !mode.Writes() {
		return diskReader{h}, nil
	}
	return h, nil
}

// A diskHandle is an open disk or partition.
type diskHandle struct {
	d             *Disk
	start, length int64
}

// ReadAt implements ninep.Reader.
func (h *diskHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= h.length {
		return 0, io.EOF
	}
	return h.d.ReadAt(ctx, p[:min(int64(len(p)), h.length-off)], h.start+off)
}

// WriteAt implements ninep.Writer.
func (h *diskHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= h.length {
		return 0, ninep.ErrFull
	}
	return h.d.WriteAt(ctx, p[:min(int64(len(p)), h.length-off)], h.start+off)
}

// Sync implements ninep.Syncer.
func (h *diskHandle) Sync(ctx context.Context) error { return h.d.Flush(ctx) }

// Close implements ninep.Handle.
func (h *diskHandle) Close(ctx context.Context) error { return h.d.Close(ctx) }

// A diskReader is a diskHandle that can only be read.
type diskReader struct{ h *diskHandle }

// ReadAt implements ninep.Reader.
func (r diskReader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return r.h.ReadAt(ctx, p, off)
}

// Close implements ninep.Handle.
func (r diskReader) Close(ctx context.Context) error { return r.h.Close(ctx) }

// A ctlNode is a file that takes commands: of an image, if that is not empty.
type ctlNode struct {
	v     *view
	image string
	id    string
}

// Qid implements ninep.Node.
func (n *ctlNode) Qid() ninep.Qid { return ninep.Qid{Path: id(n.id)} }

// Walk implements ninep.Node.
func (n *ctlNode) Walk(context.Context, string) (ninep.Node, error) { return nil, ninep.ErrNotDir }

// Stat implements ninep.Node. Linux's client reads no further than the length.
func (n *ctlNode) Stat(context.Context) (ninep.Dir, error) {
	d := n.v.file("ctl", 0o644, id(n.id))
	d.Length = int64(len(n.v.lastResult()))
	return d, nil
}

// Wstat implements ninep.Wstater: programs empty a file that they write anew.
func (n *ctlNode) Wstat(_ context.Context, ch ninep.Change) error {
	if ch.Name != nil || ch.Mode != nil || ch.UID != nil || ch.GID != nil || ch.Length != nil && *ch.Length != 0 {
		return ninep.ErrWstat
	}
	return nil
}

// Open implements ninep.Node.
func (n *ctlNode) Open(_ context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	if mode&3 == ninep.OEXEC {
		return nil, ninep.ErrPermission
	}
	return &ctlHandle{n: n, result: n.v.lastResult()}, nil
}

func (v *view) lastResult() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.result
}

// A ctlHandle runs the lines that are written to it.
type ctlHandle struct {
	n *ctlNode

	mu     sync.Mutex // guards what follows
	result string
}

// Close implements ninep.Handle.
func (h *ctlHandle) Close(context.Context) error { return nil }

// WriteAt implements ninep.Writer: what is written is one line.
func (h *ctlHandle) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	line := strings.TrimSuffix(string(p), "\n")
	if strings.ContainsAny(line, "\n\x00") {
		return 0, invalid("one command in a write, please")
	}
	v := h.n.v
	result, err := v.c.Run(ctx, line, h.n.image, v.mayWrite())
	if err != nil {
		result += "error: " + err.Error() + "\n"
	}
	h.mu.Lock()
	h.result = result
	h.mu.Unlock()
	v.mu.Lock()
	v.result = result
	v.mu.Unlock()
	if err != nil {
		return 0, fullError(err)
	}
	return len(p), nil
}

// ReadAt implements ninep.Reader.
func (h *ctlHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if off >= int64(len(h.result)) {
		return 0, io.EOF
	}
	return copy(p, h.result[off:]), nil
}
