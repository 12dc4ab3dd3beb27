package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"strata/fossil/tree"
	"strata/internal/ninep"
	"strata/venti"
)

// mainFsys is the file system of a client, or session, that names none.
const mainFsys = "main"

// Config holds the options of New; its zero value is the default.
type Config struct {
	// Memory is how many bytes of blocks each file system keeps in memory,
	// whatever the open command says; 0 leaves it to that.
	Memory int64

	// Venti, if it is not nil, is the Venti server of file systems that name
	// none: else that is $venti, or the usual address. It stays open.
	Venti venti.Store

	// Who the clients of services are: see ninep.Config. Nil believes them.
	Identity *ninep.Identity
	Users    *ninep.Users
	// Open allows services at addresses that other machines reach and that ask
	// for no certificates.
	Open bool
	// Dir is where sockets are whose names say nothing of a directory; ""
	// means the current one.
	Dir string

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil means none
}

// A Host has file systems by name. It is an ninep.FS: what clients attach to
// begins with the name of one, "main/active", and nothing means that.
type Host struct {
	cfg   Config
	log   *slog.Logger
	table []Command    // sorted
	ran   atomic.Int64 // commands

	conns, mostConns atomic.Int64
	// Of each connection.
	mostRequests, mostMessages atomic.Int64

	nine nineConn // of the command 9p

	serving context.Context // of services; ends with the host
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	device   string     // of a file system that is configured without one
	fsys     map[string]*Fsys
	services map[string]*service // by address
	tracing  bool                // every message is logged
}

// The limits of a host that is told none.
const (
	defaultConns    = 128
	defaultRequests = 256
	defaultMessages = 64
)

// New returns a host that has no file systems yet.
func New(cfg Config) *Host {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Host{cfg: cfg, log: cfg.Log, table: commands(), fsys: map[string]*Fsys{}, services: map[string]*service{}}
	h.mostConns.Store(defaultConns)
	h.mostRequests.Store(defaultRequests)
	h.mostMessages.Store(defaultMessages)
	h.nine.turn = make(chan struct{}, 1)
	h.serving, h.stop = context.WithCancel(context.Background())
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

// command returns the command with a name, or nil.
func (h *Host) command(name string) *Command {
	i, ok := slices.BinarySearchFunc(h.table, name, func(c Command, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return nil
	}
	return &h.table[i]
}

// Lookup returns the file system with a name.
func (h *Host) Lookup(name string) (*Fsys, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.fsys[name]; f != nil {
		return f, nil
	}
	return nil, notFound(name)
}

func notFound(name string) error {
	return &ninep.Error{Text: fmt.Sprintf("fsys: '%s' not found", name), Errno: ninep.ErrNotExist.Errno}
}

// lookup is Lookup for a command: one that makes a file system known gets a
// new one.
func (h *Host) lookup(name string, cmd *Command) (*Fsys, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.fsys[name]
	switch {
	case f != nil:
		return f, nil
	case cmd.Name != "config":
		return nil, notFound(name)
	case name == allFsys || name == "" || strings.ContainsAny(name, "/\x00"):
		return nil, fmt.Errorf("bad file system name %q", name)
	}
	return newFsys(h, name), nil
}

// all returns the file systems, by their names.
func (h *Host) all() []*Fsys {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.fsys), func(a, b *Fsys) int { return cmp.Compare(a.name, b.name) })
}

// first returns the file system of a session that has named none.
func (h *Host) first() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fsys[mainFsys] != nil {
		return mainFsys
	}
	if len(h.fsys) == 1 {
		for name := range h.fsys {
			return name
		}
	}
	return ""
}

// Attach implements ninep.FS.
func (h *Host) Attach(ctx context.Context, user, aname string) (ninep.Node, error) {
	t, err := h.tree(aname)
	if err != nil {
		return nil, err
	}
	return t.Attach(ctx, user, aname)
}

// tree returns the tree that a client attaches to with aname.
func (h *Host) tree(aname string) (*tree.Tree, error) {
	name, _, _ := strings.Cut(aname, "/")
	f, err := h.Lookup(cmp.Or(name, mainFsys))
	if err != nil {
		return nil, err
	}
	t := f.Tree()
	if t == nil {
		return nil, f.notOpen()
	}
	return t, nil
}

// Trusts implements ninep.Truster: a file system that was opened so takes
// everybody's word for who they are.
func (h *Host) Trusts(aname string) bool {
	name, _, _ := strings.Cut(aname, "/")
	f, err := h.Lookup(cmp.Or(name, mainFsys))
	if err != nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fs != nil && f.opt.noAuth
}

// StatFS implements ninep.StatFSer.
func (h *Host) StatFS(ctx context.Context, node ninep.Node) (ninep.StatFS, error) {
	t := tree.Of(node)
	if t == nil {
		return ninep.StatFS{}, ninep.ErrNotSupported
	}
	return t.StatFS(ctx, node)
}

// setDevice makes name the partition of a file system that is configured
// without one.
func (h *Host) setDevice(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.device = name
}

// defaultDevice returns it.
func (h *Host) defaultDevice() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.device
}

// Close ends the services and closes all file systems: what was written is
// durable when it returns nil.
func (h *Host) Close(ctx context.Context) error {
	h.stop()
	list := h.all()
	var errs []error
	for _, f := range list { // what clients leave open may have to be removed
		errs = append(errs, f.wake(ctx))
	}
	h.workers.Wait()
	for _, f := range list {
		errs = append(errs, f.close(ctx))
	}
	return errors.Join(errs...)
}
