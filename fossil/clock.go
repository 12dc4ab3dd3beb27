package fossil

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Schedule says what a file system does by the clock. Times are those of the
// user's clock, as Config.Now has them.
type Schedule struct {
	Archive   bool          // take an archival snapshot each day
	ArchiveAt int           // at so many minutes after midnight
	Snap      time.Duration // how often to take a temporary one: whole minutes; 0 means never
	Life      time.Duration // for how long to keep those; 0 means for ever
}

const (
	minutesPerDay = 24 * 60
	cleanEvery    = 24 * time.Hour // at least
)

// A timetable is a schedule, and what was done of it.
type timetable struct {
	started chan struct{} // closed when there is a schedule
	busy    chan struct{} // has room for the clock at work, or who has it stand still

	mu       sync.Mutex // guards the fields below
	set      bool
	schedule Schedule
	again    bool  // archived is not known, or for another time of day
	archived int64 // the day whose archival snapshot was taken last

	// The clock's own.
	last    int64     // minute of the last tick
	cleaned time.Time // the last clean-up
	done    int64     // archives by then
}

// SetSchedule changes what is done by the clock: nothing at all, before it is
// called. It is done at whole minutes:
//
//   - a temporary snapshot in each minute that is a multiple of Snap, counted
//     from the beginning of 1970. One that is missed is not made up for.
//   - an archival snapshot each day, at ArchiveAt or when the clock is past it
//     for the first time: also on a day that lacks this time, or has it twice.
//     The first time, it is taken unless there is one of the day whose time was
//     last, or a newer one.
//   - SnapClean in the first minute, after each Life or each day, and after an
//     archive was made.
//
// What fails is tried again a minute later.
func (fs *FS) SetSchedule(s Schedule) error {
	switch {
	case fs.cfg.ReadOnly:
		return ErrReadOnly
	case s.ArchiveAt < 0 || s.ArchiveAt >= minutesPerDay:
		return fmt.Errorf("bad time of day: %d minutes", s.ArchiveAt)
	case s.Snap < 0 || s.Snap%time.Minute != 0:
		return fmt.Errorf("bad time between snapshots: %v", s.Snap)
	case s.Life < 0:
		return fmt.Errorf("bad life of snapshots: %v", s.Life)
	}
	t := &fs.timetable
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.schedule
	t.schedule = s
	switch {
	case !s.Archive || s.ArchiveAt == was.ArchiveAt && was.Archive:
	case !was.Archive:
		t.again = true
	default: // as if it had been so all the time
		t.archived, t.again = dueDay(fs.cfg.Now(), s.ArchiveAt), false
	}
	if !t.set {
		t.set = true
		close(t.started)
	}
	return nil
}

// Schedule returns what is done by the clock.
func (fs *FS) Schedule() Schedule {
	fs.timetable.mu.Lock()
	defer fs.timetable.mu.Unlock()
	return fs.timetable.schedule
}

// runClock is the clock's goroutine. It ends with ctx. Each time it waits for
// the next whole minute of the clock as it is then, so that it does not drift,
// and notices within a minute when the clock is set or the machine has slept.
func (fs *FS) runClock(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-fs.timetable.started:
	}
	for {
		now := fs.cfg.Now()
		timer := time.NewTimer(time.Minute - time.Duration(now.Second())*time.Second - time.Duration(now.Nanosecond()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		select {
		case fs.timetable.busy <- struct{}{}:
			fs.tick(ctx, fs.cfg.Now())
			<-fs.timetable.busy
		default: // halted
		}
	}
}

// tick does what is to be done in a minute.
func (fs *FS) tick(ctx context.Context, now time.Time) {
	t := &fs.timetable
	s := fs.Schedule()
	minute := now.Unix() / 60
	if minute == t.last {
		return
	}
	t.last = minute
	failed := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			fs.log.Error(what, "error", err)
		}
	}
	if s.Snap > 0 && minute%int64(s.Snap/time.Minute) == 0 {
		_, err := fs.Snapshot(ctx, SnapConfig{})
		failed("temporary snapshot", err)
	}
	if s.Archive {
		failed("nightly archive: try again in a minute", fs.archiveDaily(ctx, now, s.ArchiveAt))
	}
	every := cleanEvery
	if s.Life > 0 {
		every = max(min(every, s.Life), time.Minute)
	}
	done := fs.Archiving().Done
	if since := now.Sub(t.cleaned); since >= every || since < 0 || done != t.done {
		err := fs.SnapClean(ctx, s.keep())
		if err == nil {
			t.cleaned, t.done = now.Truncate(time.Minute), done
		}
		failed("clean snapshots: try again in a minute", err)
	}
}

// keep returns the age that SnapClean wants.
func (s Schedule) keep() time.Duration {
	if s.Life == 0 {
		return Keep
	}
	return s.Life
}

// dueDay returns the number of the day whose time of day, so many minutes
// after midnight, the clock was past last.
func dueDay(now time.Time, at int) int64 {
	y, m, d := now.Date()
	day := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
	if now.Hour()*60+now.Minute() < at {
		day--
	}
	return day
}

// archiveDaily takes the day's archival snapshot if it is to be.
func (fs *FS) archiveDaily(ctx context.Context, now time.Time, at int) error {
	t := &fs.timetable
	due := dueDay(now, at)
	t.mu.Lock()
	archived, again := t.archived, t.again
	t.mu.Unlock()
	// Where the clock goes back over midnight, the day before is due again.
	if !again && (due == archived || due == archived-1) {
		return nil
	}
	there := false
	if again {
		var err error
		if there, err = fs.archivedSince(ctx, due, now); err != nil {
			return err
		}
	}
	if !there {
		if _, err := fs.Snapshot(ctx, SnapConfig{Archive: true}); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.archived, t.again = due, false
	return nil
}

// archivedSince tells whether there is the archival snapshot of a day, or one
// of now's.
func (fs *FS) archivedSince(ctx context.Context, day int64, now time.Time) (bool, error) {
	for _, when := range []time.Time{time.Unix(day*86400, 0).UTC(), now} {
		switch _, err := fs.Walk(ctx, when.Format("/archive/2006/0102")); {
		case err == nil:
			return true, nil
		case !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrDeleted):
			return false, err
		}
	}
	return false, nil
}
