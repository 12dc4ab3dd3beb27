package ninep

import (
	"context"
	"sync"
	"time"
)

type unixKey struct{}

// FromUnix tells, of the context of an Attach, whether the client speaks one of
// Unix's dialects. Its programs count on it that a file they make has just the
// mode that they ask for, and that one they have open goes on when its name is
// removed.
func FromUnix(ctx context.Context) bool { return ctx.Value(unixKey{}) != nil }

// A requestContext is the context of one request. It is cheaper than one of
// package context: one allocation, and no channel unless somebody waits.
type requestContext struct {
	parent context.Context // the connection's
	caller context.Context // of a local client; else nil

	mu    sync.Mutex // guards the fields below
	done  chan struct{}
	stops [2]func() bool // end the watch of parent and caller
	err   error
}

func (x *requestContext) Deadline() (time.Time, bool) {
	if x.caller != nil {
		return x.caller.Deadline()
	}
	return x.parent.Deadline()
}

func (x *requestContext) Value(key any) any {
	if x.caller != nil {
		return x.caller.Value(key)
	}
	return x.parent.Value(key)
}

func (x *requestContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		x.done = make(chan struct{})
		if x.err != nil {
			close(x.done)
			return x.done
		}
		for i, p := range []context.Context{x.parent, x.caller} {
			if p != nil && p.Done() != nil {
				x.stops[i] = context.AfterFunc(p, func() { x.cancel(p.Err()) })
			}
		}
	}
	return x.done
}

func (x *requestContext) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return x.err
	}
	if x.caller != nil && x.caller.Err() != nil {
		return x.caller.Err()
	}
	return x.parent.Err()
}

func (x *requestContext) cancel(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return
	}
	x.err = err
	if x.done != nil {
		close(x.done)
	}
	for _, stop := range x.stops {
		if stop != nil {
			stop()
		}
	}
}
