package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/ninep"
	"strata/venti"
)

// ImageSuffix ends the names of files that hold the score of a disk.
const ImageSuffix = ".vdisk"

// maxScoreFile is the longest file that is looked at for a score, in bytes.
const maxScoreFile = 512

// ScoreText returns the score, with the type in front of it if there is one,
// from the contents of a file: it stands there alone, but for white space
// around it.
func ScoreText(contents []byte) (text string, ok bool) {
	text = strings.TrimSpace(string(contents[:min(len(contents), maxScoreFile)]))
	_, _, err := venti.ParseTypedScore(text)
	return text, err == nil
}

// A hostNode is a regular file or a directory of the host, below the
// directory that the tree was given. Symbolic links are followed as far as
// they stay below it. Those that lead out, that lead nowhere, and files of
// other kinds are not there.
//
// BUG: it is known by its path. When the host renames it, a client that holds
// it finds what then has the old name, or nothing.
type hostNode struct {
	tree *Tree
	name string    // in its directory
	rel  string    // path below the root, "." for itself
	qid  ninep.Qid // when it was walked to
}

// A hostFile is an open file of the host: with score set, one that stands for
// a disk.
type hostFile struct {
	f     *os.File
	info  fs.FileInfo
	qid   ninep.Qid
	score string // "" if it is what it is
}

// open opens the file and finds out what it is.
func (n *hostNode) open() (*hostFile, error) {
	// A pipe that someone puts in the file's place must not stop us.
	f, err := n.tree.files.OpenFile(n.rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, hostError(err)
	}
	h := &hostFile{f: f}
	if err := h.look(n.name); err != nil {
		f.Close()
		return nil, hostError(err)
	}
	return h, nil
}

// look fills in h from the open file.
func (h *hostFile) look(name string) (err error) {
	if h.info, err = h.f.Stat(); err != nil {
		return err
	}
	if !h.info.IsDir() && !h.info.Mode().IsRegular() {
		return ninep.ErrNotExist
	}
	if h.qid, err = hostQid(h.f, h.info); err != nil {
		return err
	}
	if !h.info.Mode().IsRegular() || !strings.HasSuffix(name, ImageSuffix) || h.info.Size() > maxScoreFile {
		return nil
	}
	var buf [maxScoreFile]byte
	m, err := h.f.ReadAt(buf[:], 0)
	if err != nil && err != io.EOF {
		return err
	}
	if text, ok := ScoreText(buf[:m]); ok {
		h.score = text
		// Another score is another version, however fast it was written.
		h.qid.Vers ^= uint32(ninep.QidPath(text))
	}
	return nil
}

// hostQid identifies a file of the host. An inode's number is used again when
// its file is gone, but not at the same instant, where the time of its birth
// is known.
func hostQid(f *os.File, fi fs.FileInfo) (ninep.Qid, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return ninep.Qid{}, err
	}
	var st unix.Statx_t
	cerr := c.Control(func(fd uintptr) {
		err = unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	if cerr != nil {
		return ninep.Qid{}, cerr
	}
	if err != nil {
		return ninep.Qid{}, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	born := unix.StatxTimestamp{}
	if st.Mask&unix.STATX_BTIME != 0 {
		born = st.Btime
	}
	q := ninep.Qid{
		Path: ninep.QidPath(fmt.Sprint("host/", st.Dev_major, "/", st.Dev_minor, "/", st.Ino, "/", born.Sec, "/", born.Nsec)),
		Vers: uint32(ninep.QidPath(fmt.Sprint(st.Ctime.Sec, "/", st.Ctime.Nsec, "/", st.Size))),
	}
	if fi.IsDir() {
		q.Type = ninep.QTDir
	}
	return q, nil
}

// hostError is what a client is told of a failure of the host. What leads out
// of the directory is not there.
func hostError(err error) error {
	var e *ninep.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, fs.ErrPermission):
		return ninep.ErrPermission
	case errors.Is(err, fs.ErrNotExist), isEscape(err),
		errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOTDIR):
		return ninep.ErrNotExist
	case errors.Is(err, unix.ENAMETOOLONG):
		return ninep.ErrNameTooLong
	}
	return err
}

// isEscape tells whether err is os.Root's, for which package os has no name.
func isEscape(err error) bool {
	var pe *os.PathError
	return errors.As(err, &pe) && strings.Contains(pe.Err.Error(), "escapes")
}

func (n *hostNode) Qid() ninep.Qid { return n.qid }

func (n *hostNode) Walk(ctx context.Context, name string) (ninep.Node, error) {
	child := &hostNode{tree: n.tree, name: name, rel: path.Join(n.rel, name)}
	h, err := child.open()
	if err != nil {
		return nil, err
	}
	defer h.f.Close()
	child.qid = h.qid
	return child, nil
}

func (n *hostNode) Stat(ctx context.Context) (ninep.Dir, error) {
	h, err := n.open()
	if err != nil {
		return ninep.Dir{}, err
	}
	defer h.f.Close()
	d := ninep.Dir{Qid: h.qid, Mode: 0o444, Name: n.name, Mtime: h.info.ModTime()}
	switch {
	case h.info.IsDir():
		d.Mode = ninep.ModeDir | 0o555
	case h.score != "":
		im, err := n.tree.openText(ctx, h.score)
		if err != nil {
			return ninep.Dir{}, err
		}
		d.Length = im.Size()
	default:
		d.Length = h.info.Size()
	}
	return d, nil
}

// openText opens the image that the text of a file names.
func (t *Tree) openText(ctx context.Context, text string) (*Image, error) {
	kind, score, err := venti.ParseTypedScore(text)
	if err != nil {
		return nil, err
	}
	im, err := t.images.open(ctx, score)
	if err != nil {
		// The file exists, whatever became of the disk.
		return nil, fmt.Errorf("venti i/o error: %w", err)
	}
	if kind != "" && kind != im.root.Type {
		return nil, fmt.Errorf("%s: %w: its root is of type %q", text, ErrNotImage, im.root.Type)
	}
	return im, nil
}

func (n *hostNode) Open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	if mode&^ninep.OAPPEND != ninep.OREAD {
		return nil, ninep.ErrReadOnly
	}
	h, err := n.open()
	if err != nil {
		return nil, err
	}
	switch {
	case h.info.IsDir():
		return &hostDir{node: n, f: h.f}, nil
	case h.score != "":
		defer h.f.Close()
		im, err := n.tree.openText(ctx, h.score)
		if err != nil {
			return nil, err
		}
		return &dataReader{n.tree, im}, nil
	}
	return hostHandle{h.f}, nil
}

// A hostHandle is an open regular file of the host.
type hostHandle struct{ f *os.File }

func (h hostHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return h.f.ReadAt(p, off)
}

func (h hostHandle) Close(context.Context) error { return h.f.Close() }

// A hostDir is an open directory of the host. Cookies count the names that it
// had when it was read from the start last.
type hostDir struct {
	node *hostNode
	f    *os.File

	// mu guards the fields below. It is held while the directory is read: all
	// other uses of this handle need the result.
	mu    sync.Mutex
	names []string
	read  bool
}

func (d *hostDir) Close(context.Context) error { return d.f.Close() }

// list returns the directory's names in order, as they are now if again is
// set.
func (d *hostDir) list(again bool) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.read && !again {
		return d.names, nil
	}
	if _, err := d.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := d.f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	d.names, d.read = names, true
	return names, nil
}

func (d *hostDir) ReadDir(ctx context.Context, cookie uint64) iter.Seq2[ninep.Dir, error] {
	return func(yield func(ninep.Dir, error) bool) {
		names, err := d.list(cookie == 0)
		if err != nil {
			yield(ninep.Dir{}, hostError(err))
			return
		}
		for i := cookie; i < uint64(len(names)); i++ {
			e, ok, err := d.entry(ctx, names[i])
			if err != nil {
				yield(ninep.Dir{}, err)
				return
			}
			e.Cookie = i + 1
			if ok && !yield(e, nil) {
				return
			}
		}
	}
}

// entry describes one child for a listing, in which what cannot be opened
// does not stand: ok is false.
func (d *hostDir) entry(ctx context.Context, name string) (e ninep.Dir, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return e, false, err
	}
	child, err := d.node.Walk(ctx, name)
	if err != nil {
		return e, false, nil
	}
	e, err = child.Stat(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return e, false, ctx.Err()
		}
		// A file whose disk cannot be opened is there, as ls should show, and
		// opening it says why it is no use.
		return ninep.Dir{Qid: child.Qid(), Mode: 0o444, Name: name, Mtime: time.Time{}}, true, nil
	}
	return e, true, nil
}
