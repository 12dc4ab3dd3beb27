package hashtree

import (
	"context"
	"fmt"
	"sync/atomic"

	"strata/venti"
)

// A Putter stores blocks that the store may have already, and learns how many
// those are: many small files share one. Its methods may be called at once.
type Putter struct {
	st     venti.Store
	prober venti.Prober       // nil if st is none
	scored venti.ScoredWriter // nil if st is none

	// hits is a moving average of how many probes found their block, from 0 to
	// hitsMax. calls counts puts.
	hits, calls atomic.Int32
}

// A probe that misses costs a round trip and then the write that it could
// not save, so it pays only while some hit. Below a quarter (a 4 KiB write
// takes a few times as long as a probe) only one put in sixteen probes,
// which is how the average finds blocks that are shared further on.
const (
	hitsMax     = 1 << 12
	hitsEnough  = hitsMax / 4
	hitsWeight  = 32
	probeAnyway = 16
)

// NewPutter returns a putter that stores blocks in st.
func NewPutter(st venti.Store) *Putter {
	p := &Putter{st: st}
	p.prober, _ = st.(venti.Prober)
	p.scored, _ = st.(venti.ScoredWriter)
	p.hits.Store(hitsMax)
	return p
}

// Put sees to it that the store has data, whose score is s. sent tells that
// it had to be written.
func (p *Putter) Put(ctx context.Context, s venti.Score, t venti.Type, data []byte) (sent bool, err error) {
	if p.prober != nil && (p.hits.Load() >= hitsEnough || p.calls.Add(1)%probeAnyway == 0) {
		has, err := p.prober.HasBlock(ctx, s, t)
		if err != nil {
			return false, fmt.Errorf("look for block %v of type %v: %w", s, t, err)
		}
		// Updates may cross; an average does not mind.
		h := p.hits.Load()
		if has {
			p.hits.Add((hitsMax - h) / hitsWeight)
			return false, nil
		}
		p.hits.Add(-h / hitsWeight)
	}
	if p.scored != nil {
		err = p.scored.WriteScored(ctx, s, t, data)
	} else {
		var got venti.Score
		if got, err = p.st.WriteBlock(ctx, t, data); err == nil && got != s {
			err = fmt.Errorf("store answers score %v", got)
		}
	}
	if err != nil {
		return false, fmt.Errorf("write block %v of type %v: %w", s, t, err)
	}
	return true, nil
}
