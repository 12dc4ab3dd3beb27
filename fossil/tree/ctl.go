package tree

import (
	"context"
	"errors"
	"io"
	"strings"

	"strata/fossil"
	"strata/fossil/internal/users"
	"strata/internal/ninep"
)

// A Runner runs one line of commands, and returns what it has to say. It is
// called by one goroutine at a time.
type Runner func(ctx context.Context, line string) (result string, err error)

const (
	// CtlName is the name of the file in the root directory that takes commands,
	// which no other file there may have.
	CtlName = "ctl"

	ctlMode = 0o660

	// No file has this qid, nor an entry in a listing this cookie: those of
	// files count up from 1, and those of snapshots have the first bit set.
	ctlPath   = 1 << 62
	ctlCookie = ninep.MaxCookie
)

var (
	errOneLine = &ninep.Error{Text: "one command in a write, please", Errno: ninep.ErrInvalid.Errno}
	errBadLine = &ninep.Error{Text: "ctl file takes no NUL", Errno: ninep.ErrInvalid.Errno}
)

// isCtl tells whether name, in the directory n, is the file ctl.
func (n *node) isCtl(name string) bool {
	return name == CtlName && n.t.cfg.Ctl != nil && n.file == n.t.fs.Root()
}

func (n *node) ctl() *ctlNode { return &ctlNode{n.t, n.user} }

// A ctlNode is the file ctl in the root directory, as a user sees it. It is
// there also while the file system is halted.
type ctlNode struct {
	t    *Tree
	user string
}

// Qid implements ninep.Node.
func (c *ctlNode) Qid() ninep.Qid { return ninep.Qid{Path: ctlPath} }

// Walk implements ninep.Node.
func (c *ctlNode) Walk(context.Context, string) (ninep.Node, error) { return nil, fossil.ErrNotDir }

// Stat implements ninep.Node.
func (c *ctlNode) Stat(context.Context) (ninep.Dir, error) { return c.dir(), nil }

func (c *ctlNode) dir() ninep.Dir {
	now := c.t.leases.now()
	return ninep.Dir{
		Qid: c.Qid(), Mode: ctlMode, Name: CtlName, UID: users.Adm, GID: users.Adm, Muid: users.Adm,
		Atime: now, Mtime: now, Ctime: now, Cookie: ctlCookie,
	}
}

// Open implements ninep.Node. The console can do more than any user of files:
// permissions hold here though the file system may have none.
func (c *ctlNode) Open(_ context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	if mode&3 == ninep.OEXEC || !c.t.Users().Member(users.Adm, c.user) {
		return nil, errPermission
	}
	return &ctlHandle{run: c.t.cfg.Ctl(), turn: make(chan struct{}, 1)}, nil
}

// Wstat implements ninep.Wstater: programs empty a file that they write anew.
func (c *ctlNode) Wstat(_ context.Context, ch ninep.Change) error {
	switch {
	case !c.t.Users().Member(users.Adm, c.user):
		return errPermission
	case ch.Name != nil, ch.Mode != nil, ch.UID != nil, ch.GID != nil, ch.Length != nil && *ch.Length != 0:
		return ninep.ErrWstat
	}
	return nil
}

// A ctlHandle runs the lines that are written to it.
type ctlHandle struct {
	run    Runner
	turn   chan struct{} // has room for who uses the fields below
	result string        // of the last line
}

// Close implements ninep.Handle.
func (h *ctlHandle) Close(context.Context) error { return nil }

func (h *ctlHandle) wait(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WriteAt implements ninep.Writer: what is written is one line.
func (h *ctlHandle) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	line := strings.TrimSuffix(string(p), "\n")
	switch {
	case strings.Contains(line, "\n"):
		return 0, errOneLine
	case strings.Contains(line, "\x00"):
		return 0, errBadLine
	}
	if err := h.wait(ctx); err != nil {
		return 0, err
	}
	defer func() { <-h.turn }()
	var err error
	if h.result, err = h.run(ctx, line); err != nil {
		return 0, whole(err)
	}
	return len(p), nil
}

// whole returns an error that clients see with all that it says, not only the
// words of what is behind it.
func whole(err error) error {
	var e *ninep.Error
	if errors.As(err, &e) && e.Text != err.Error() {
		return &ninep.Error{Text: err.Error(), Errno: e.Errno}
	}
	return err
}

// ReadAt implements ninep.Reader.
func (h *ctlHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.wait(ctx); err != nil {
		return 0, err
	}
	defer func() { <-h.turn }()
	if off >= int64(len(h.result)) {
		return 0, io.EOF
	}
	return copy(p, h.result[off:]), nil
}
