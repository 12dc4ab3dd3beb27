package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"strata/internal/ninep"
)

// A host is the file system that images live in, as its clients see it: files,
// and a file ctl that takes commands. Paths are from its root, and of
// characters that the commands take as they are.
type host struct {
	root *ninep.File
	uid  string
	lock *ninep.File      // see hold
	ctls chan *ninep.File // open ctl files that nobody uses
}

// idleCtls is how many ctl files are kept open.
const idleCtls = 8

func openHost(ctx context.Context, c *ninep.Client, user string) (*host, error) {
	if c.Dialect() != ninep.Linux {
		return nil, fmt.Errorf("images need %v, the server speaks %v", ninep.Linux, c.Dialect())
	}
	root, err := c.Attach(ctx, user, "main")
	if err != nil {
		return nil, err
	}
	return &host{root: root, uid: user, ctls: make(chan *ninep.File, idleCtls)}, nil
}

func (h *host) close(ctx context.Context) error {
	for len(h.ctls) > 0 {
		(<-h.ctls).Close(ctx)
	}
	if h.lock != nil {
		h.lock.Close(ctx)
	}
	return h.root.Close(ctx)
}

// hold opens a file, which it makes if need be, that the file system lets one
// client at a time have open: DMEXCL is Plan 9's way to lock.
func (h *host) hold(ctx context.Context, path string) (err error) {
	h.lock, err = h.open(ctx, path, ninep.ORDWR)
	if errors.Is(err, ninep.ErrNotExist) {
		err = h.tell(ctx, "create %s %s %s l664", path, h.uid, h.uid)
		if err == nil || errors.Is(err, ninep.ErrExist) {
			h.lock, err = h.open(ctx, path, ninep.ORDWR)
		}
	}
	return err
}

// holds tells whether the file is this client's still: it is to be used now and
// then.
func (h *host) holds(ctx context.Context) error {
	_, err := h.lock.ReadAt(ctx, make([]byte, 1), 0)
	if err == io.EOF {
		err = nil
	}
	return err
}

// tell gives a command that has nothing to say.
func (h *host) tell(ctx context.Context, format string, args ...any) error {
	_, err := h.command(ctx, false, fmt.Sprintf(format, args...))
	return err
}

// ask gives a command, and returns what it has to say.
func (h *host) ask(ctx context.Context, format string, args ...any) (string, error) {
	return h.command(ctx, true, fmt.Sprintf(format, args...))
}

func (h *host) command(ctx context.Context, result bool, line string) (text string, err error) {
	var f *ninep.File
	select {
	case f = <-h.ctls:
	default:
		// A write to the end of a file is not done again when a connection is lost.
		if f, err = h.open(ctx, "ctl", ninep.ORDWR|ninep.OAPPEND); err != nil {
			return "", err
		}
	}
	if _, err = f.WriteAt(ctx, []byte(line), 0); err == nil && result {
		var b []byte
		b, err = readAll(ctx, f)
		text = string(b)
	}
	if err != nil {
		// What is left of its result is not for others.
		f.Close(context.WithoutCancel(ctx))
		return "", fmt.Errorf("%s: %w", line, err)
	}
	select {
	case h.ctls <- f:
	default:
		f.Close(ctx)
	}
	return text, nil
}

// readAll reads an open file to its end.
func readAll(ctx context.Context, f *ninep.File) ([]byte, error) {
	b := make([]byte, 0, 16<<10)
	for {
		n, err := f.ReadAt(ctx, b[len(b):cap(b)], int64(len(b)))
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		b = append(b, make([]byte, cap(b))...)[:len(b)]
	}
}

func elements(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func (h *host) walk(ctx context.Context, path string) (*ninep.File, error) {
	f, err := h.root.Walk(ctx, elements(path)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (h *host) open(ctx context.Context, path string, mode ninep.OpenMode) (*ninep.File, error) {
	f, err := h.walk(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := f.Open(ctx, mode); err != nil {
		f.Close(ctx)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// readFile returns what a file holds.
func (h *host) readFile(ctx context.Context, path string) ([]byte, error) {
	f, err := h.open(ctx, path, ninep.OREAD)
	if err != nil {
		return nil, err
	}
	defer f.Close(ctx)
	b, err := readAll(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// createFile makes a file that is not there yet.
func (h *host) createFile(ctx context.Context, dir, name string, data []byte) error {
	f, err := h.walk(ctx, dir)
	if err != nil {
		return err
	}
	defer f.Close(ctx)
	if err := f.Create(ctx, name, 0o664, ninep.OWRITE); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if len(data) == 0 {
		return nil
	}
	if _, err := f.WriteAt(ctx, data, 0); err != nil {
		return fmt.Errorf("%s/%s: %w", dir, name, err)
	}
	return nil
}

// replaceFile gives a file, which need not be there, new contents: after a
// crash it has the old or the new, provided that a sync follows.
func (h *host) replaceFile(ctx context.Context, dir, name string, data []byte) error {
	tmp := ".tmp" + name
	if err := h.remove(ctx, dir, tmp); err != nil && !errors.Is(err, ninep.ErrNotExist) {
		return err
	}
	if err := h.createFile(ctx, dir, tmp, data); err != nil {
		return err
	}
	return h.rename(ctx, dir, tmp, dir, name)
}

// appendFile writes data at the end of a file, in one piece.
func (h *host) appendFile(ctx context.Context, path string, data []byte) error {
	f, err := h.open(ctx, path, ninep.OWRITE|ninep.OAPPEND)
	if err != nil {
		return err
	}
	defer f.Close(ctx)
	_, err = f.WriteAt(ctx, data, 0)
	return err
}

// rename moves a file, in the place of another perhaps, or a directory.
func (h *host) rename(ctx context.Context, fromDir, from, toDir, to string) error {
	f, err := h.walk(ctx, fromDir)
	if err != nil {
		return err
	}
	defer f.Close(ctx)
	t, err := h.walk(ctx, toDir)
	if err != nil {
		return err
	}
	defer t.Close(ctx)
	if err := f.RenameName(ctx, from, t, to); err != nil {
		return fmt.Errorf("rename %s/%s to %s/%s: %w", fromDir, from, toDir, to, err)
	}
	return nil
}

func (h *host) mkdir(ctx context.Context, dir, name string) error {
	f, err := h.walk(ctx, dir)
	if err != nil {
		return err
	}
	defer f.Close(ctx)
	if err := f.Mkdir(ctx, name, ninep.ModeDir|0o775); err != nil {
		return fmt.Errorf("%s/%s: %w", dir, name, err)
	}
	return nil
}

// remove removes a file, or an empty directory.
func (h *host) remove(ctx context.Context, dir, name string) error {
	f, err := h.walk(ctx, dir+"/"+name)
	if err != nil {
		return err
	}
	return f.Remove(ctx)
}

// removeAll removes a directory and what is in it, if it is there. Its
// directories have only files.
func (h *host) removeAll(ctx context.Context, dir, name string) error {
	list, err := h.list(ctx, dir+"/"+name)
	if errors.Is(err, ninep.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := h.remove(ctx, dir+"/"+name, d.Name); err != nil {
			return err
		}
	}
	return h.remove(ctx, dir, name)
}

// list returns what is in a directory; of each the name and the qid.
func (h *host) list(ctx context.Context, dir string) ([]ninep.Dir, error) {
	f, err := h.open(ctx, dir, ninep.OREAD)
	if err != nil {
		return nil, err
	}
	defer f.Close(ctx)
	return f.ReadDir(ctx)
}

// resize sets the length of a file.
func (h *host) resize(ctx context.Context, path string, size int64) error {
	f, err := h.walk(ctx, path)
	if err != nil {
		return err
	}
	defer f.Close(ctx)
	return f.Wstat(ctx, ninep.Change{Length: &size})
}

// size returns the length of a file.
func (h *host) size(ctx context.Context, path string) (int64, error) {
	f, err := h.walk(ctx, path)
	if err != nil {
		return 0, err
	}
	defer f.Close(ctx)
	d, err := f.Stat(ctx)
	return d.Length, err
}

// sync makes all that was done durable.
func (h *host) sync(ctx context.Context) error { return h.tell(ctx, "sync") }

// punch makes a hole in a file.
func (h *host) punch(ctx context.Context, path string, off, n int64) error {
	return h.tell(ctx, "punch %s %d %d", path, off, n)
}

// A span is a range of a file.
type span struct{ off, n int64 }

// extents returns the ranges of a file's n bytes at off that are no holes. What
// it is told are lines of an offset and a length.
func (h *host) extents(ctx context.Context, path string, off, n int64) ([]span, error) {
	text, err := h.ask(ctx, "extents %s %d %d", path, off, n)
	if err != nil {
		return nil, err
	}
	var list []span
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, fmt.Errorf("extents %s: bad line %q", path, line)
		}
		var x span
		var err1, err2 error
		x.off, err1 = strconv.ParseInt(f[0], 0, 64)
		x.n, err2 = strconv.ParseInt(f[1], 0, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("extents %s: %w", path, err)
		}
		list = append(list, x)
	}
	return list, nil
}
