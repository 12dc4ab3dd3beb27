package ventitest

import (
	"context"
	"errors"
	"sync/atomic"

	"strata/venti"
)

// ErrFault is the error of an operation that a Faulty store was told to
// fail.
var ErrFault = errors.New("injected fault")

// An Op is one operation that is about to reach a Faulty store.
type Op struct {
	N     int64  // how many came before it
	Name  string // "read", "write", "sync" or "probe"
	Type  venti.Type
	Score venti.Score // of a read or probe
}

// A Faulty is a store that fails operations which the test chooses. It can
// probe, and has no other ability.
type Faulty struct {
	st   venti.Store
	fail func(Op) error
	ops  atomic.Int64
}

var (
	_ venti.Store  = (*Faulty)(nil)
	_ venti.Prober = (*Faulty)(nil)
)

// NewFaulty returns a store that asks fail before each operation on st. An
// error from fail is returned in st's place. fail may be called at once from
// several goroutines.
func NewFaulty(st venti.Store, fail func(Op) error) *Faulty {
	return &Faulty{st: st, fail: fail}
}

// FailNth returns a function for NewFaulty that fails operation n, counted
// from 0, and none else.
func FailNth(n int64) func(Op) error {
	return func(op Op) error {
		if op.N == n {
			return ErrFault
		}
		return nil
	}
}

// FailFrom returns a function for NewFaulty that fails operation n, counted
// from 0, and all that follow.
func FailFrom(n int64) func(Op) error {
	return func(op Op) error {
		if op.N >= n {
			return ErrFault
		}
		return nil
	}
}

// Ops returns how many operations there were.
func (f *Faulty) Ops() int64 { return f.ops.Load() }

func (f *Faulty) check(name string, t venti.Type, s venti.Score) error {
	return f.fail(Op{N: f.ops.Add(1) - 1, Name: name, Type: t, Score: s})
}

// ReadBlock implements venti.BlockReader.
func (f *Faulty) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if err := f.check("read", t, s); err != nil {
		return 0, err
	}
	return f.st.ReadBlock(ctx, s, t, buf)
}

// HasBlock implements venti.Prober.
func (f *Faulty) HasBlock(ctx context.Context, s venti.Score, t venti.Type) (bool, error) {
	if err := f.check("probe", t, s); err != nil {
		return false, err
	}
	return venti.HasBlock(ctx, f.st, s, t)
}

// WriteBlock implements venti.BlockWriter.
func (f *Faulty) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	if err := f.check("write", t, venti.Score{}); err != nil {
		return venti.Score{}, err
	}
	return f.st.WriteBlock(ctx, t, data)
}

// Sync implements venti.Syncer.
func (f *Faulty) Sync(ctx context.Context) error {
	if err := f.check("sync", 0, venti.Score{}); err != nil {
		return err
	}
	return f.st.Sync(ctx)
}
