package fossil

import (
	"context"
	"errors"
	"sync"
)

// ErrHalted is why nothing is archived between Halt and Unhalt.
var ErrHalted = errors.New("file system is halted")

// A pause keeps the archiver from working.
type pause struct {
	mu     sync.Mutex // guards the fields below
	on     bool
	cancel context.CancelFunc // of the archiver at work, or nil
}

// Halt ends the archiver's work, which is resumed after Unhalt, and has the
// clock stand still. When it has returned nil, nothing but what is called on
// the file system and its files changes it, but for trees that are still being
// closed. It is not called again before Unhalt.
func (fs *FS) Halt(ctx context.Context) error {
	p := &fs.pause
	p.mu.Lock()
	p.on = true
	if p.cancel != nil {
		p.cancel()
	}
	p.mu.Unlock()
	select {
	case fs.archiving <- struct{}{}:
		select {
		case fs.timetable.busy <- struct{}{}:
			return nil
		case <-ctx.Done():
			<-fs.archiving
		}
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = false
	fs.wakeArchiver()
	return ctx.Err()
}

// Rest makes all that was done before durable, and leaves the partition so
// that Plan 9's programs can open it, until the next change.
func (fs *FS) Rest(ctx context.Context) error {
	if err := fs.flush(ctx); err != nil {
		return translate(err)
	}
	return translate(fs.b.Rest(ctx))
}

// Unhalt lets the archiver and the clock go on after a Halt.
func (fs *FS) Unhalt() {
	p := &fs.pause
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = false
	<-fs.archiving
	<-fs.timetable.busy
	fs.wakeArchiver()
}

// begin returns the context of an archiver that begins its work, and what it
// calls at the end; the error is that it is not to work now.
func (p *pause) begin(ctx context.Context) (context.Context, func(error) error, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		return nil, nil, ErrHalted
	}
	ctx, cancel := context.WithCancel(ctx)
	p.cancel = cancel
	return ctx, func(err error) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cancel = nil
		if cancel(); p.on && errors.Is(err, context.Canceled) {
			return ErrHalted
		}
		return err
	}, nil
}

func (fs *FS) wakeArchiver() {
	select {
	case fs.kick <- struct{}{}:
	default:
	}
}
