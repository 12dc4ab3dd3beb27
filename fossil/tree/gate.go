package tree

import (
	"context"
	"math"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"strata/internal/ninep"
)

// errClosed is for who goes on to use a file system that has been closed.
var errClosed = &ninep.Error{Text: "file system is closed", Errno: ninep.ErrIO.Errno}

// A gate lets the operations of clients in, any number at once, until it is
// shut: then they wait until it opens, or their contexts end.
type gate struct {
	room   *semaphore.Weighted // one for each operation, or all for who has it shut
	closed atomic.Bool         // for ever
}

const allRoom = math.MaxInt64

func newGate() gate { return gate{room: semaphore.NewWeighted(allRoom)} }

// enter begins an operation, which leave ends. One operation is not part of
// another: in between, somebody may be waiting to shut the gate.
func (g *gate) enter(ctx context.Context) error {
	if !g.room.TryAcquire(1) { // which does not make the context work, as Acquire does
		if err := g.room.Acquire(ctx, 1); err != nil {
			return err
		}
	}
	if g.closed.Load() {
		g.room.Release(1)
		return errClosed
	}
	return nil
}

// tryEnter is enter for who does not wait.
func (g *gate) tryEnter() bool {
	if !g.room.TryAcquire(1) {
		return false
	}
	if g.closed.Load() {
		g.room.Release(1)
		return false
	}
	return true
}

func (g *gate) leave() { g.room.Release(1) }

// Halt waits until no client's operation is under way; those that come then
// wait for Unhalt. It is not called again before that.
func (t *Tree) Halt(ctx context.Context) error { return t.gate.room.Acquire(ctx, allRoom) }

// Unhalt lets clients go on after a Halt.
func (t *Tree) Unhalt() { t.gate.room.Release(allRoom) }

// Close ends what clients do, after a Halt: every operation fails from then on.
func (t *Tree) Close() {
	t.gate.closed.Store(true)
	t.Unhalt()
}
