package live_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/fossil"
	"strata/fossil/tree"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/vac/meta"
	"strata/vdisk/live"
	"strata/venti"
	"strata/venti/ventitest"
)

// A clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A machine is a file system with its archive, on a simulated disk.
type machine struct {
	t     testing.TB
	clock *clock
	store *ventitest.Memory
	venti venti.Store // what of it is used
	m     *disk.Machine
	disk  *disk.Sim
	cfg   live.Config

	fs     *fossil.FS
	server *ninep.Server
	client *ninep.Client
	wires  sync.WaitGroup // connections
	cat    *live.Catalogue
}

func newMachine(t testing.TB, size int64) *machine {
	t.Helper()
	m := &machine{
		t: t, store: ventitest.NewMemory(), m: disk.NewMachine(),
		clock: &clock{now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.Local)},
	}
	m.venti = m.store
	m.disk = m.m.NewDisk("fossil", size)
	if err := fossil.Format(t.Context(), m.disk, fossil.FormatConfig{BlockSize: 4096, Now: m.clock.Now}); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

// start opens the file system, and the catalogue over a client in memory.
func (m *machine) start() {
	m.t.Helper()
	var err error
	m.fs, err = fossil.Open(m.disk, fossil.Config{Venti: m.venti, Now: m.clock.Now, Interval: time.Hour, NoAtime: true})
	if err != nil {
		m.t.Fatal(err)
	}
	t := tree.New(m.fs, tree.Config{Now: m.clock.Now, Ctl: func() tree.Runner { return m.run }})
	m.server = ninep.NewServer(t, ninep.Config{})
	m.client = m.server.Local(ninep.ClientConfig{Dialect: ninep.Linux})
	m.open()
}

func (m *machine) open() {
	m.t.Helper()
	m.cfg.Now = m.clock.Now
	var err error
	if m.cat, err = live.Open(m.t.Context(), m.client, m.venti, m.cfg); err != nil {
		m.t.Fatal(err)
	}
}

// stop closes all.
func (m *machine) stop() {
	m.t.Helper()
	if m.fs == nil {
		return
	}
	ctx := context.Background()
	err := errors.Join(m.cat.Close(ctx), m.client.Close())
	m.wires.Wait()
	if err = errors.Join(err, m.fs.Close(ctx)); err != nil {
		m.t.Error(err)
	}
	m.fs = nil
}

func (m *machine) restart() {
	m.t.Helper()
	m.stop()
	m.start()
}

// nightly archives all of the file system, and waits for that.
func (m *machine) nightly() {
	m.t.Helper()
	if _, err := m.fs.Snapshot(m.t.Context(), fossil.SnapConfig{Archive: true}); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.fs.Archive(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// run runs a command of Fossil's console.
func (m *machine) run(ctx context.Context, line string) (string, error) {
	f := strings.Fields(line)
	number := func(i int) int64 {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	dir, name := "", ""
	if len(f) > 1 {
		i := strings.LastIndexByte(f[1], '/')
		dir, name = f[1][:max(i, 0)], f[1][i+1:]
	}
	switch f[0] {
	case "sync":
		return "", m.fs.Sync(ctx)
	case "create":
		d, err := m.fs.Walk(ctx, dir)
		if err != nil {
			return "", err
		}
		digits := strings.TrimLeft(f[4], "dTl")
		perm, err := strconv.ParseUint(digits, 8, 32)
		if err != nil {
			return "", err
		}
		mode := meta.Mode(perm)
		for _, c := range strings.TrimSuffix(f[4], digits) {
			mode |= map[rune]meta.Mode{'d': meta.ModeDir, 'T': meta.ModeTemporary, 'l': meta.ModeExclusive}[c]
		}
		_, err = d.Create(ctx, name, mode, f[2])
		return "", err
	case "graft":
		d, err := m.fs.Walk(ctx, dir)
		if err != nil {
			return "", err
		}
		text, n, _ := strings.Cut(f[2], "/")
		_, score, err := venti.ParseTypedScore(text)
		if err != nil {
			return "", err
		}
		i, err := strconv.Atoi(n)
		if err != nil {
			return "", err
		}
		_, err = d.Graft(ctx, name, score, i, "adm")
		return "", err
	case "punch":
		x, err := m.fs.Walk(ctx, f[1])
		if err != nil {
			return "", err
		}
		return "", x.Punch(ctx, number(2), number(3), "adm")
	case "extents":
		x, err := m.fs.Walk(ctx, f[1])
		if err != nil {
			return "", err
		}
		var b strings.Builder
		for off, end := number(2), number(2)+number(3); off < end; {
			lo, hi, err := x.Data(ctx, off)
			if err != nil {
				return "", err
			}
			if lo = max(lo, off); lo >= end || lo >= hi {
				break
			}
			fmt.Fprintf(&b, "\t%d %d\n", lo, min(hi, end)-lo)
			off = hi
		}
		return b.String(), nil
	case "snap": // -a -s source -d destination
		path, err := m.fs.Snapshot(ctx, fossil.SnapConfig{Archive: true, Source: f[3], Path: f[5]})
		return path, err
	case "vac":
		score, err := m.fs.Vac(ctx, f[1])
		if err != nil {
			return "", err
		}
		return "vac:" + score.String() + "\n", nil
	}
	return "", fmt.Errorf("%s: - eh?", f[0])
}
