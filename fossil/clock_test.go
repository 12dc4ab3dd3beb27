package fossil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"strata/internal/disk"
	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

// place returns a place whose clocks change twice a year: in 2000, where
// synctest begins, on April 2 at two and on October 29 at two.
func place(t *testing.T) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Skip("no time zones: ", err)
	}
	return loc
}

// until sleeps to a time of the clock there.
func until(now func() time.Time, t time.Time) { time.Sleep(t.Sub(now())) }

// paths lists the snapshots below a directory.
func paths(t *testing.T, fs *FS, dir string) (list []string) {
	t.Helper()
	snaps, err := fs.Snapshots(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range snaps {
		if !s.Dead {
			list = append(list, s.Path)
		}
	}
	slices.Sort(list)
	return list
}

// TestSchedule follows the clock through days on which it changes.
func TestSchedule(t *testing.T) {
	loc := place(t)
	day := func(m time.Month, d, hour, min int) time.Time { return time.Date(2000, m, d, hour, min, 0, 0, loc) }
	for _, tc := range []struct {
		name       string
		schedule   Schedule
		begin, end time.Time
		want       []string
	}{
		{"an hour that is not", Schedule{Archive: true, ArchiveAt: 150}, day(4, 1, 12, 0), day(4, 3, 12, 0),
			[]string{"/archive/2000/0401", "/archive/2000/0402", "/archive/2000/0403"}},
		{"an hour that is twice", Schedule{Archive: true, ArchiveAt: 90}, day(10, 28, 12, 0), day(10, 30, 12, 0),
			[]string{"/archive/2000/1028", "/archive/2000/1029", "/archive/2000/1030"}},
		{"before the time", Schedule{Archive: true, ArchiveAt: 180}, day(5, 5, 1, 0), day(5, 5, 4, 0),
			[]string{"/archive/2000/0505", "/archive/2000/0505.1"}}, // for the day before, and the day
		{"each hour over an hour that is twice", Schedule{Snap: time.Hour}, day(10, 29, 0, 30), day(10, 29, 3, 30),
			[]string{"/snapshot/2000/1029/0100", "/snapshot/2000/1029/0100.1", "/snapshot/2000/1029/0200", "/snapshot/2000/1029/0300"}},
		{"at midnight", Schedule{Archive: true}, day(12, 30, 23, 0), day(12, 31, 23, 59),
			[]string{"/archive/2000/1230", "/archive/2000/1231"}},
		{"nothing", Schedule{}, day(5, 5, 1, 0), day(5, 8, 1, 0), nil},
		{"a short life", Schedule{Snap: time.Hour, Life: 2 * time.Hour}, day(5, 5, 0, 30), day(5, 6, 0, 30),
			[]string{"/snapshot/2000/0505/2100", "/snapshot/2000/0505/2200", "/snapshot/2000/0505/2300", "/snapshot/2000/0506/0000"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(tc.begin))
				now := func() time.Time { return time.Now().In(loc) }
				fs := mustOpen(t, newFS(t, disk.NewMachine(), 16<<20, 8192), Config{Interval: 24 * time.Hour, Now: now})
				defer mustClose(t, fs)
				put(t, fs, "f", "text")
				if err := fs.SetSchedule(tc.schedule); err != nil {
					t.Fatal(err)
				}
				until(now, tc.end)
				synctest.Wait()
				if got := paths(t, fs, "/"); !slices.Equal(got, tc.want) {
					t.Errorf("snapshots %q, want %q", got, tc.want)
				}
			})
		})
	}
}

// TestScheduleChanges restarts the program, halts it, changes the schedule and
// sets the clock.
func TestScheduleChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		now := func() time.Time { return time.Now().UTC().Add(time.Duration(offset.Load())) }
		cfg := Config{Interval: 24 * time.Hour, Now: now}
		d := newFS(t, disk.NewMachine(), 16<<20, 8192)
		fs := mustOpen(t, d, cfg)
		at := func(day, hour, min int) {
			t.Helper()
			until(now, time.Date(2000, 1, day, hour, min, 30, 0, time.UTC))
			synctest.Wait()
		}
		set := func(s Schedule) {
			t.Helper()
			if err := fs.SetSchedule(s); err != nil {
				t.Fatal(err)
			}
		}
		want := func(dir string, names ...string) {
			t.Helper()
			if got := paths(t, fs, dir); !slices.Equal(got, names) {
				t.Errorf("%v: %q, want %q", now(), got, names)
			}
		}
		nightly := Schedule{Archive: true, ArchiveAt: 180}
		at(1, 12, 0)
		set(nightly)
		at(1, 12, 1)
		want("/archive", "/archive/2000/0101")
		mustClose(t, fs)

		// The day's is there; what was missed while it was down is not.
		fs = mustOpen(t, d, cfg)
		set(nightly)
		at(1, 20, 0)
		want("/archive", "/archive/2000/0101")
		mustClose(t, fs)
		at(4, 5, 0)
		fs = mustOpen(t, d, cfg)
		set(nightly)
		at(4, 5, 2)
		want("/archive", "/archive/2000/0101", "/archive/2000/0104")

		// Later on the same day, since it is asked for.
		set(Schedule{Archive: true, ArchiveAt: 7 * 60})
		at(4, 6, 0)
		want("/archive", "/archive/2000/0101", "/archive/2000/0104")
		at(4, 8, 0)
		want("/archive", "/archive/2000/0101", "/archive/2000/0104", "/archive/2000/0104.1")

		// Halted over the time, it is taken afterwards; temporary ones are not.
		set(Schedule{Archive: true, ArchiveAt: 7 * 60, Snap: time.Hour})
		at(4, 9, 30)
		want("/snapshot", "/snapshot/2000/0104/0900")
		if err := fs.Halt(t.Context()); err != nil {
			t.Fatal(err)
		}
		at(5, 7, 30)
		want("/archive", "/archive/2000/0101", "/archive/2000/0104", "/archive/2000/0104.1")
		fs.Unhalt()
		at(5, 7, 32)
		want("/archive", "/archive/2000/0101", "/archive/2000/0104", "/archive/2000/0104.1", "/archive/2000/0105")
		want("/snapshot", "/snapshot/2000/0104/0900")

		// A clock that was years fast, and is set: the next day has its archive.
		set(nightly)
		offset.Store(int64(5 * 366 * 24 * time.Hour))
		at(6, 0, 0) // of 2000: at once
		time.Sleep(24 * time.Hour)
		offset.Store(0)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := paths(t, fs, "/archive/2000"); len(got) < 5 {
			t.Errorf("after the clock was set: %q", got)
		}
		for _, s := range []Schedule{{ArchiveAt: 24 * 60}, {ArchiveAt: -1}, {Snap: time.Second}, {Snap: -time.Minute}, {Life: -1}} {
			if err := fs.SetSchedule(s); err == nil {
				t.Errorf("%+v is taken", s)
			}
		}
		clean(t, fs)
		mustClose(t, fs)
	})
}

// A counted store counts what it is asked for.
type counted struct {
	venti.Store
	reads, writes atomic.Int64
}

func (c *counted) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	c.reads.Add(1)
	return c.Store.ReadBlock(ctx, s, t, buf)
}

func (c *counted) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	c.writes.Add(1)
	return c.Store.WriteBlock(ctx, t, data)
}

// A nightCost is what a night has taken.
type nightCost struct {
	writes, reads int64         // of Venti
	written, log  int64         // blocks of the partition, and bytes of its log
	used          uint32        // blocks, in the morning
	took          time.Duration // by a clock outside of the bubble
}

func (n nightCost) String() string {
	return fmt.Sprintf("%d blocks to Venti, %d from it, %d blocks and %d bytes of log written, %d in use, %v", n.writes, n.reads, n.written, n.log, n.used, n.took.Round(time.Microsecond))
}

func mean(list []nightCost) (m nightCost) {
	for _, c := range list {
		m.writes += c.writes
		m.reads += c.reads
		m.written += c.written
		m.log += c.log
		m.used += c.used
		m.took += c.took
	}
	n := int64(len(list))
	return nightCost{m.writes / n, m.reads / n, m.written / n, m.log / n, m.used / uint32(n), m.took / time.Duration(n)}
}

func realTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// TestNights has 400 days pass, each with the same work, four temporary
// snapshots that are kept for a day, and an archive at night. All archives are
// there, and the last night costs what the first did.
func TestNights(t *testing.T) {
	loc := place(t)
	const nights = 400
	st := &counted{Store: ventitest.NewMemory()}
	d := newFS(t, disk.NewMachine(), 32<<20, 8192)
	var costs []nightCost
	var days []time.Time
	synctest.Test(t, func(t *testing.T) {
		now := func() time.Time { return time.Now().In(loc) }
		fs := mustOpen(t, d, Config{Venti: st, Now: now, Interval: 24 * time.Hour, Memory: 1 << 20})
		put(t, fs, "date", "before")
		until(now, time.Date(2000, 1, 1, 3, 30, 0, 0, loc))
		if err := fs.SetSchedule(Schedule{Archive: true, ArchiveAt: 150, Snap: 6 * time.Hour, Life: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		for i := range nights {
			day := time.Date(2000, 1, 1+i, 12, 0, 0, 0, loc)
			until(now, day)
			put(t, fs, "date", day.Format(time.DateOnly))
			for k := range 5 {
				put(t, fs, fmt.Sprintf("f%d", (i*5+k)%50), string(ventitest.Block(uint64(i*5+k), 20000)))
			}
			next := day.AddDate(0, 0, 1)
			until(now, time.Date(next.Year(), next.Month(), next.Day(), 1, 45, 0, 0, loc))
			s, w, r, began := fs.b.Stats(), st.writes.Load(), st.reads.Load(), realTime(t)
			until(now, time.Date(next.Year(), next.Month(), next.Day(), 4, 0, 0, 0, loc))
			synctest.Wait()
			e := fs.b.Stats()
			costs = append(costs, nightCost{st.writes.Load() - w, st.reads.Load() - r, e.Written - s.Written, e.LogBytes - s.LogBytes, e.Used, realTime(t) - began})
			days = append(days, next)
		}
		if n := len(paths(t, fs, "/snapshot")); n > 9 {
			t.Errorf("%d temporary snapshots are left", n)
		}
		clean(t, fs)
		mustClose(t, fs)
	})
	t.Logf("the first night: %v", costs[0])
	t.Logf("the last night:  %v", costs[nights-1])
	first, last := mean(costs[:10]), mean(costs[nights-10:])
	t.Logf("of ten, the first: %v", first)
	t.Logf("of ten, the last:  %v", last)
	for _, c := range []struct {
		what        string
		first, last int64
	}{
		{"blocks to Venti", first.writes, last.writes}, {"blocks from Venti", first.reads, last.reads},
		{"blocks written", first.written, last.written}, {"bytes of log", first.log, last.log}, {"blocks in use", int64(first.used), int64(last.used)},
	} {
		if c.last > c.first*5/4+2 {
			t.Errorf("%s: %d in one of the last nights, %d in one of the first", c.what, c.last, c.first)
		}
	}

	// All that there was each night is there, read anew through Venti.
	fs := mustOpen(t, d, Config{Venti: st, ReadOnly: true, Memory: 1 << 20})
	defer mustClose(t, fs)
	for _, day := range days {
		path := day.Format("/archive/2006/0102")
		want := day.AddDate(0, 0, -1).Format(time.DateOnly)
		if got, err := get(fs, path+"/date"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	n := 0
	for s := fs.Last(); !s.IsZero() && s != venti.EmptyScore; n++ {
		a, err := vac.Open(t.Context(), st, s)
		if err != nil {
			t.Fatal(err)
		}
		s = a.Head.Prev
	}
	if n != nights+1 {
		t.Errorf("%d archives in a chain, want %d", n, nights+1)
	}
	if _, err := fs.Walk(t.Context(), "/archive/1999"); !errors.Is(err, ErrNotExist) {
		t.Errorf("an archive of no day: %v", err)
	}
}
