package fossil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// A ventiServer is one that can go away and come back at the same address.
type ventiServer struct {
	t    *testing.T
	addr string
	st   venti.Store
	stop func()
}

func newVentiServer(t *testing.T) *ventiServer {
	t.Helper()
	// The names of t.TempDir can be too long for a socket.
	dir, err := os.MkdirTemp("", "venti")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &ventiServer{t: t, addr: filepath.Join(dir, "s"), st: ventitest.NewMemory()}
}

func (v *ventiServer) start() {
	v.t.Helper()
	ln, err := net.Listen("unix", v.addr)
	if err != nil {
		v.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- venti.NewServer(v.st, venti.ServerConfig{}).Serve(ctx, ln) }()
	v.stop = func() {
		cancel()
		if err := <-served; err != nil {
			v.t.Errorf("serve: %v", err)
		}
	}
}

// events is a log of which a test waits for lines.
type events chan string

func (e events) Enabled(context.Context, slog.Level) bool { return true }
func (e events) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e events) WithGroup(string) slog.Handler            { return e }
func (e events) Handle(_ context.Context, r slog.Record) error {
	e <- r.Message
	return nil
}

// wait returns when there was a line with this beginning.
func (e events) wait(t *testing.T, text string) {
	t.Helper()
	patience := time.After(time.Minute)
	for {
		select {
		case line := <-e:
			if strings.HasPrefix(line, text) {
				return
			}
		case <-patience:
			t.Fatalf("the log has no %q", text)
		}
	}
}

// TestVentiAway has the Venti server go away and come back: what is here can
// be read and written until the disk is full, what is there cannot be read and
// says so, and an archive goes on by itself.
func TestVentiAway(t *testing.T) {
	ctx := t.Context()
	v := newVentiServer(t)
	v.start()
	const patience = 100 * time.Millisecond
	remote := venti.NewRemote(v.addr, venti.RemoteConfig{Patience: patience})
	defer remote.Close()
	log := make(events, 10000)
	d := newFS(t, disk.NewMachine(), 8<<20, 8192)
	c := newClock()
	cfg := Config{Venti: remote, Interval: time.Hour, Now: c.Now, Log: slog.New(log)}
	fs := mustOpen(t, d, cfg)
	big := ventitest.Block(1, 2<<20)
	f, err := walk(t, fs, "/active").Create(ctx, "big", 0o644, "ken")
	if err == nil {
		_, err = f.WriteAt(ctx, big, 0, "ken")
	}
	if err != nil {
		t.Fatal(err)
	}
	snap(t, fs, SnapConfig{Archive: true}, "/archive/2026/1127")
	log.wait(t, "archived")
	v.stop()
	put(t, fs, "small", "at once") // what was in memory before it was archived still is
	v.start()
	mustClose(t, fs)
	fs = mustOpen(t, d, cfg)
	put(t, fs, "small", "before")                         // what this needs is in memory then
	if list := paths(t, fs, "/archive"); len(list) != 1 { // and this
		t.Errorf("snapshots %q", list)
	}
	v.stop()

	read := func(fs *FS) error {
		t.Helper()
		begin := time.Now()
		got := make([]byte, len(big))
		f, err := fs.Walk(ctx, "/active/big")
		if err == nil {
			_, err = f.ReadAt(ctx, got, 0)
		}
		if err == nil && !bytes.Equal(got, big) {
			t.Error("other bytes")
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		return err
	}
	away := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrVenti) || !strings.HasPrefix(err.Error(), "walk") && !strings.Contains(err.Error(), "venti i/o error") {
			t.Errorf("%s: %v, want that Venti is away", what, err)
		}
	}
	away("read", read(fs))

	// What is written goes on until the disk is full.
	put(t, fs, "small", "text")
	var names []string
	for {
		name := fmt.Sprint("new", len(names))
		f, err := walk(t, fs, "/active").Create(ctx, name, 0o644, "ken")
		if err == nil {
			_, err = f.WriteAt(ctx, ventitest.Block(uint64(len(names)), 100<<10), 0, "ken")
		}
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatalf("after %d files: %v", len(names), err)
		}
		names = append(names, name)
	}
	if len(names) < 20 {
		t.Errorf("%d files written", len(names))
	}
	c.now = c.now.Add(24 * time.Hour)
	snap(t, fs, SnapConfig{Archive: true}, "/archive/2026/1128")
	log.wait(t, "archive: try again later")
	if a := fs.Archiving(); !a.Waiting || a.Failed == 0 || !errors.Is(a.Err, ErrVenti) {
		t.Errorf("the archiver: %+v", a)
	}
	if got, err := get(fs, "/active/small"); err != nil || got != "text" {
		t.Errorf("what is here: %q, %v", got, err)
	}
	away("read again", read(fs))
	mustClose(t, fs)

	// Opened anew, it knows nothing of what is there, and can wait for it.
	fs = mustOpen(t, d, cfg)
	away("read anew", read(fs))
	log.wait(t, "archive: try again later")
	v.start()
	defer func() { v.stop() }()
	log.wait(t, "archived")
	if err := read(fs); err != nil {
		t.Errorf("Venti is back: %v", err)
	}
	if a := fs.Archiving(); a.Waiting || a.Err != nil {
		t.Errorf("the archiver: %+v", a)
	}
	if err := fs.SnapClean(ctx, Keep); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		want := ventitest.Block(uint64(i), 100<<10)
		for _, path := range []string{"/active/", "/archive/2026/1128/"} {
			got := make([]byte, len(want)+1)
			n, err := walk(t, fs, path+name).ReadAt(ctx, got, 0)
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("%s%s: %d bytes, %v", path, name, n, err)
			}
		}
	}
	if f, err = walk(t, fs, "/active").Create(ctx, "room", 0o644, "ken"); err == nil {
		_, err = f.WriteAt(ctx, big, 0, "ken")
	}
	if err != nil {
		t.Errorf("there is no room again: %v", err)
	}
	clean(t, fs)
	mustClose(t, fs)
}

// A silent store answers no reads, after so many.
type silent struct {
	venti.Store
	after int
}

func (s *silent) ReadBlock(ctx context.Context, score venti.Score, t venti.Type, buf []byte) (int, error) {
	if s.after--; s.after >= 0 {
		return s.Store.ReadBlock(ctx, score, t, buf)
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestVentiSilent asks a Venti that does not answer: all who wait for a block
// are told so, after some time, and it is asked again later.
func TestVentiSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &silent{ventitest.NewMemory(), 1000}
		d := newFS(t, disk.NewMachine(), 8<<20, 8192)
		fs := mustOpen(t, d, Config{Venti: st, Interval: time.Hour, NoArchiver: true})
		put(t, fs, "f", "text")
		snap(t, fs, SnapConfig{Archive: true}, time.Now().Format("/archive/2006/0102"))
		score, err := fs.Archive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, fs)
		fs = mustOpen(t, d, Config{Venti: st, Interval: time.Hour})
		defer mustClose(t, fs)
		f := walk(t, fs, "/active/f")
		st.after = 0
		begin := time.Now()
		errs := make(chan error, 3)
		for range cap(errs) {
			go func() {
				_, err := f.ReadAt(t.Context(), make([]byte, 10), 0)
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, ErrVenti) || !strings.Contains(err.Error(), "no answer in 30s") {
				t.Errorf("read: %v", err)
			}
		}
		if took := time.Since(begin); took != defaultPatience {
			t.Errorf("reads took %v", took)
		}
		if _, err := walk(t, fs, "/active").Graft(t.Context(), "g", score, 0, "ken"); !errors.Is(err, ErrVenti) || !strings.Contains(err.Error(), "no answer in 30s") {
			t.Errorf("graft: %v", err)
		}
		// Who gives up says nothing about others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read with less patience: %v", err)
		}
		st.after = 1000
		if got, err := get(fs, "/active/f"); err != nil || got != "text" {
			t.Errorf("later: %q, %v", got, err)
		}
	})
}
