package ninep

import (
	"fmt"
	"time"
)

// looks is how often watch looks in the shorter of the times that it watches.
const looks = 4

// watch looks at the connection now and then, and ends it when its client
// has asked for nothing or taken nothing for as long as Config says. What it
// returns waits for the end of that, which is that of c.ctx.
func (c *conn) watch() (wait func()) {
	idleTime := c.srv.cfg.IdleTime
	if idleTime <= 0 {
		idleTime = helloTime
	}
	stallTime := c.srv.cfg.StallTime
	ended := make(chan struct{})
	go func() { // wait waits for it
		defer close(ended)
		t := time.NewTicker(max(min(idleTime, stallTime)/looks, time.Millisecond))
		defer t.Stop()
		var idle, stalled lapse
		for {
			select {
			case <-c.ctx.Done():
				return
			case now := <-t.C:
				asks, moves := c.activity()
				switch {
				case idle.of(asks, c.taken.Load(), now) >= idleTime:
					c.endErr = fmt.Errorf("nothing asked for %v: %w", idleTime, ErrTimeout)
				case stalled.of(moves, c.wrote.Load(), now) >= stallTime:
					c.endErr = fmt.Errorf("replies not taken for %v: %w", stallTime, ErrTimeout)
				default:
					continue
				}
				c.rwc.Close() // wakes the reader and the writer
				return
			}
		}
	}()
	return func() { <-ended }
}

// activity tells whether the connection is in use though its client asks for
// nothing, and whether the client has nothing to take.
func (c *conn) activity() (asks, moves bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mounted := len(c.fids) > 0 && c.srv.cfg.IdleTime <= 0
	return mounted || len(c.tags) > 0 || c.writing, !c.writing
}

// A lapse is how long a count has stood still.
type lapse struct {
	count uint64
	since time.Time
}

// of returns the lapse so far. If active the count is as good as changed.
func (l *lapse) of(active bool, count uint64, now time.Time) time.Duration {
	if active || count != l.count || l.since.IsZero() {
		l.count, l.since = count, now
	}
	return now.Sub(l.since)
}
