package store

import (
	"sync"
	"sync/atomic"
)

// badClumps are the addresses of clumps that were found corrupt, so that the
// blocks are stored anew when somebody writes them. The zero value has none.
type badClumps struct {
	n  atomic.Int64
	mu sync.Mutex
	m  map[uint64]bool
}

// maxBad bounds badClumps; what comes after is not healed.
const maxBad = 1 << 16

func (b *badClumps) any() bool { return b.n.Load() > 0 }

func (b *badClumps) add(addr uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = make(map[uint64]bool)
	}
	if len(b.m) < maxBad {
		b.m[addr] = true
		b.n.Store(int64(len(b.m)))
	}
}

func (b *badClumps) has(addr uint64) bool {
	if !b.any() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[addr]
}
