package ninep

import (
	"context"
	"sync"
	"time"
)

// A requestContext is the context of one request. It is cheaper than one of
// package context: one allocation, and no channel unless somebody waits.
type requestContext struct {
	parent context.Context

	mu   sync.Mutex // guards the fields below
	done chan struct{}
	stop func() bool // ends the watch of parent
	err  error
}

func (x *requestContext) Deadline() (time.Time, bool) { return x.parent.Deadline() }
func (x *requestContext) Value(key any) any           { return x.parent.Value(key) }

func (x *requestContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		x.done = make(chan struct{})
		if x.err != nil {
			close(x.done)
		} else {
			x.stop = context.AfterFunc(x.parent, func() { x.cancel(x.parent.Err()) })
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
	if x.stop != nil {
		x.stop()
	}
}
