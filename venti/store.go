package venti

import (
	"context"
	"errors"
)

// MaxBlockSize is the largest block a server stores, in bytes (venti(7);
// spec/venti-protocol.md, section 5).
const MaxBlockSize = 56 * 1024

// A BlockReader gives blocks by name.
type BlockReader interface {
	// ReadBlock fills buf from the start with the block that (s, t.Disk())
	// names and returns its length. It writes nothing past that length.
	//
	// The caller owns buf and may reuse it when ReadBlock has returned. What
	// it is given is checked: bytes that do not hash to s are never returned.
	// The empty score is the empty block, whatever t, with no look-up; so is
	// Score{}.
	//
	// The errors that callers tell apart with errors.Is are ErrNotFound (no
	// such block), ErrTooLong (the block is longer than buf), ErrCorrupt (it
	// was stored but can no longer be read whole), ErrBadType, and those of ctx.
	// Calls may run at once.
	ReadBlock(ctx context.Context, s Score, t Type, buf []byte) (n int, err error)
}

// A BlockWriter takes blocks.
type BlockWriter interface {
	// WriteBlock stores data, at most MaxBlockSize bytes, under
	// (SHA-1 of data, t.Disk()) and returns the score. It stores data as it is:
	// callers truncate first (Truncate). The empty block is not stored; its
	// score is EmptyScore.
	//
	// data is only read, and is the caller's again when WriteBlock returns.
	// On return the block can be read back but need not be durable: see Sync.
	// The errors that callers tell apart are ErrTooLarge, ErrBadType,
	// ErrReadOnly, ErrFull, ErrCollision and those of ctx. Calls may run at once.
	WriteBlock(ctx context.Context, t Type, data []byte) (Score, error)
}

// A Syncer makes written blocks durable.
type Syncer interface {
	// Sync returns nil only when every block whose WriteBlock returned before
	// Sync was called is on stable storage. After a write or sync of the
	// storage has failed, every later Sync fails too, until it is reopened; only
	// one for which there was no room (ErrFull) is made good by a later Sync.
	Sync(ctx context.Context) error
}

// A Store is a block server as its users see it, near or far. It is
// implemented by Client, by the engine in venti/store, and by the in-memory,
// read-only and faulty stores in ventitest, all of which pass
// ventitest.TestStore.
type Store interface {
	BlockReader
	BlockWriter
	Syncer
}

// A Prober is a store that can tell cheaply whether it has a block: without
// sending its data, and without reading it from the disk. It is an optional
// ability, found by type assertion.
type Prober interface {
	// HasBlock tells whether the store holds the block named (s, t.Disk()).
	// True promises as much as a returned WriteBlock does. EmptyScore is always
	// held.
	HasBlock(ctx context.Context, s Score, t Type) (bool, error)
}

// A CachedReader is a store that can tell, without waiting for a disk or a
// network, whether it has a block in memory. It is an optional ability, found
// by type assertion, which lets Server answer at once.
type CachedReader interface {
	// ReadCached is ReadBlock for what can be answered from memory; ok is
	// false, and buf undefined, when that needs more. It does not block. err may
	// be ErrTooLong or, from a store that knows without looking, ErrNotFound.
	//
	// With an empty buf it is a probe, which needs no data: a store that keeps
	// its index in memory answers ErrTooLong for a block that it holds.
	ReadCached(s Score, t Type, buf []byte) (n int, ok bool, err error)
}

// A ScoredWriter is a store that need not be told to compute a score which
// the caller has already. It is an optional ability, found by type assertion.
type ScoredWriter interface {
	// WriteScored is WriteBlock of data whose score is s: the caller vouches for
	// that. A store that finds otherwise returns ErrCorrupt.
	WriteScored(ctx context.Context, s Score, t Type, data []byte) error
}

// HasBlock asks st whether it holds the block named (s, t.Disk()): cheaply
// if st is a Prober, else by a read that has no room for the data.
func HasBlock(ctx context.Context, st BlockReader, s Score, t Type) (bool, error) {
	if p, ok := st.(Prober); ok {
		return p.HasBlock(ctx, s, t)
	}
	switch _, err := st.ReadBlock(ctx, s, t, nil); {
	case err == nil, errors.Is(err, ErrTooLong):
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil
	default:
		return false, err
	}
}

// ReadOnly returns a store that reads from st and refuses every write with
// ErrReadOnly. It has the abilities to probe and to read from memory that st
// has.
func ReadOnly(st Store) Store {
	cached, _ := st.(CachedReader)
	return readOnly{st, cached}
}

type readOnly struct {
	Store
	cached CachedReader // nil if the store is none
}

func (r readOnly) WriteBlock(context.Context, Type, []byte) (Score, error) {
	return Score{}, ErrReadOnly
}

func (r readOnly) HasBlock(ctx context.Context, s Score, t Type) (bool, error) {
	return HasBlock(ctx, r.Store, s, t)
}

func (r readOnly) ReadCached(s Score, t Type, buf []byte) (int, bool, error) {
	if r.cached == nil {
		return 0, false, nil
	}
	return r.cached.ReadCached(s, t, buf)
}

// The errors that callers test for with errors.Is. The strings that a Venti
// client sees on the wire are made from them in one table, in message.go.
var (
	ErrNotFound = errors.New("no such block")
	ErrCorrupt  = errors.New("block is corrupt")
	ErrTooLong  = errors.New("block is longer than asked for")
	ErrTooLarge = errors.New("lump too large")
	ErrBadType  = errors.New("bad block type")
	ErrReadOnly = errors.New("read only")
	ErrFull     = errors.New("no space left in arenas")

	// ErrDisconnected is why a request of a Client has no answer: the connection is
	// gone. ErrLost is what a Remote finds out at a sync.
	ErrDisconnected = errors.New("connection is gone")
	ErrLost         = errors.New("written blocks were lost")

	// ErrCollision is why a block is not stored: another one has its score. It is
	// noticed where the store can tell, see package store.
	ErrCollision = errors.New("score collision")
)
