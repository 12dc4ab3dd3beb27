package console

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"

	"strata/fossil"
	"strata/fossil/tree"
	"strata/internal/disk"
	"strata/internal/ninep"
)

// A Fsys is a file system that has a name. Its methods may be called at once.
type Fsys struct {
	h    *Host
	name string
	room *semaphore.Weighted // one for each command at work, or all for one that is alone

	mu     sync.Mutex // guards the fields below, which commands that are alone change
	device string
	host   string // of Venti, "" for the usual one
	opt    openOptions
	file   *disk.Partition // nil unless it is open; so are those below
	venti  *remote         // nil without Venti, too
	fs     *fossil.FS
	tree   *tree.Tree
	halted bool
	gone   bool // unconfigured; guarded by Host.mu
}

// What the flags of open say.
type openOptions struct {
	noAuth, noPermissions, noVenti, anyWstat, noAtime, readOnly bool

	cache int // blocks
}

const allRoom = math.MaxInt64

func newFsys(h *Host, name string) *Fsys {
	return &Fsys{h: h, name: name, room: semaphore.NewWeighted(allRoom)}
}

// Name returns its name.
func (f *Fsys) Name() string { return f.name }

// FS returns the file system, nil unless it is open.
func (f *Fsys) FS() *fossil.FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fs
}

// Tree returns what clients see of it, nil unless it is open.
func (f *Fsys) Tree() *tree.Tree {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree
}

// Halted tells whether it is halted.
func (f *Fsys) Halted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.halted
}

func (f *Fsys) notOpen() error {
	return &ninep.Error{Text: fmt.Sprintf("fsys: '%s' not open", f.name), Errno: ninep.ErrIO.Errno}
}

// run runs a command when it may.
func (f *Fsys) run(ctx context.Context, c *Call) error {
	room := int64(allRoom)
	if c.Command.Scope == Open || c.Command.Scope == Any {
		room = 1
	}
	if err := f.room.Acquire(ctx, room); err != nil {
		return err
	}
	defer f.room.Release(room)
	f.h.mu.Lock()
	gone := f.gone
	f.h.mu.Unlock()
	switch {
	case gone:
		return notFound(f.name)
	case c.Command.Scope == Named:
	case f.FS() == nil:
		return f.notOpen()
	case c.Command.Scope == Open && f.Halted():
		return fmt.Errorf("file system %s is halted", f.name)
	}
	return c.Command.Run(ctx, c)
}

// open opens it. The caller is alone.
func (f *Fsys) open(ctx context.Context, opt openOptions) (err error) {
	if f.FS() != nil {
		return fmt.Errorf("fsys: '%s' already open", f.name)
	}
	if f.device == "" {
		return fmt.Errorf("fsys: '%s' has no partition", f.name)
	}
	file, err := disk.Open(f.device, disk.Options{ReadOnly: opt.readOnly})
	if err != nil {
		return err
	}
	cfg := fossil.Config{ReadOnly: opt.readOnly, NoAtime: opt.noAtime, Now: f.h.cfg.Now, Log: f.h.log.With("fsys", f.name)}
	if cfg.Memory = f.h.cfg.Memory; cfg.Memory == 0 && opt.cache > 0 {
		cfg.Memory = int64(opt.cache) * int64(blockSize(file))
	}
	var v *remote
	if !opt.noVenti {
		v = newRemote(f.h, f.host)
		cfg.Venti = v
	}
	fs, err := fossil.Open(file, cfg)
	if err != nil {
		if v != nil {
			v.Close()
		}
		file.Close()
		return fmt.Errorf("%s: %w", f.device, err)
	}
	t := tree.New(fs, tree.Config{
		Name: f.name, NoPermissions: opt.noPermissions, AnyWstat: opt.anyWstat, Now: f.h.cfg.Now, Ctl: f.ctl,
	})
	f.begin(ctx, fs, t, opt)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opt, f.file, f.venti, f.fs, f.tree, f.halted = opt, file, v, fs, t, false
	return nil
}

// begin reads the table of users, and starts the clock. A table that cannot be
// used leaves the default one.
func (f *Fsys) begin(ctx context.Context, fs *fossil.FS, t *tree.Tree, opt openOptions) {
	log := f.h.log.With("fsys", f.name)
	problems, err := t.LoadUsers(ctx)
	for _, p := range problems {
		log.Warn("users", "file", tree.UsersFile, "error", p)
	}
	if err != nil {
		log.Error("users: the default ones", "error", err)
	}
	if !opt.readOnly {
		if err := fs.SetSchedule(fossil.Schedule{}); err != nil {
			log.Error("start the clock", "error", err)
		}
	}
}

// blockSize returns how large the blocks in a file are, or what it usually is.
func blockSize(file disk.File) int {
	if n, err := fossil.BlockSizeOf(file); err == nil {
		return n
	}
	return fossil.DefaultBlockSize
}

// stop ends what else than clients changes the file system, and waits for
// that. The caller is alone.
func (f *Fsys) stop(ctx context.Context) error { return f.fs.Halt(ctx) }

// quiet has clients wait, and nothing else change the file system. The caller
// is alone.
func (f *Fsys) quiet(ctx context.Context) error {
	if err := f.tree.Halt(ctx); err != nil {
		return err
	}
	if err := f.stop(ctx); err != nil {
		f.tree.Unhalt()
		return err
	}
	f.setHalted(true)
	return nil
}

// halt makes everything durable, and has clients wait. The caller is alone.
func (f *Fsys) halt(ctx context.Context) error {
	if f.halted {
		return nil
	}
	if err := f.quiet(ctx); err != nil {
		return err
	}
	if err := f.fs.Rest(ctx); err != nil {
		return errors.Join(err, f.unhalt())
	}
	return nil
}

// unhalt lets clients go on. The caller is alone.
func (f *Fsys) unhalt() error {
	if !f.halted {
		return fmt.Errorf("file system %s not halted", f.name)
	}
	f.fs.Unhalt()
	f.tree.Unhalt()
	f.setHalted(false)
	return nil
}

func (f *Fsys) setHalted(to bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.halted = to
}

// closeOpen closes an open file system, whose clients get errors from then on.
// One to which nothing can be written any more is closed, too. The caller is
// alone.
func (f *Fsys) closeOpen(ctx context.Context) error {
	if !f.halted {
		if err := f.quiet(ctx); err != nil {
			return err
		}
	}
	f.tree.Close()
	errs := []error{f.fs.Close(ctx)}
	if f.venti != nil {
		errs = append(errs, f.venti.Close())
	}
	errs = append(errs, f.file.Close())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fs, f.tree, f.venti, f.file, f.halted = nil, nil, nil, nil, false
	return errors.Join(errs...)
}

// close closes it, if it is open.
func (f *Fsys) close(ctx context.Context) error {
	if err := f.room.Acquire(ctx, allRoom); err != nil {
		return err
	}
	defer f.room.Release(allRoom)
	if f.fs == nil {
		return nil
	}
	return f.closeOpen(ctx)
}

// wake ends a halt, if there is one.
func (f *Fsys) wake(ctx context.Context) error {
	if err := f.room.Acquire(ctx, allRoom); err != nil {
		return err
	}
	defer f.room.Release(allRoom)
	if !f.halted {
		return nil
	}
	return f.unhalt()
}

// ctl returns what runs the lines that are written to the file ctl.
func (f *Fsys) ctl() tree.Runner {
	s := f.h.NewSession()
	s.current = f.name
	return func(ctx context.Context, line string) (string, error) {
		var out strings.Builder
		err := s.Exec(ctx, &out, line)
		return out.String(), err
	}
}
