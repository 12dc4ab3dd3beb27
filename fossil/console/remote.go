package console

import (
	"context"
	"sync"
	"time"

	"strata/venti"
)

// ventiAway is how long a request waits for a Venti server that cannot be
// reached, as when it is started anew.
const ventiAway = 2 * time.Second

// A remote is the Venti server of an open file system. Which one that is can
// change.
type remote struct {
	h *Host

	mu  sync.Mutex // guards what follows
	cur venti.Store
	own *venti.Remote // cur, if it is to be closed
}

var (
	_ venti.Store        = (*remote)(nil)
	_ venti.Prober       = (*remote)(nil)
	_ venti.ScoredWriter = (*remote)(nil)
)

// newRemote returns one that connects when it is first asked for something.
func newRemote(h *Host, addr string) *remote {
	r := &remote{h: h}
	r.dial(addr)
	return r
}

// dial makes addr the server from now on; requests under way at another fail.
func (r *remote) dial(addr string) {
	var own *venti.Remote
	cur := r.h.cfg.Venti
	if addr != "" || cur == nil {
		own = venti.NewRemote(addr, venti.RemoteConfig{Patience: ventiAway, Logger: r.h.log})
		cur = own
	}
	r.mu.Lock()
	old := r.own
	r.cur, r.own = cur, own
	r.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (r *remote) store() venti.Store {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cur
}

// ReadBlock implements venti.BlockReader.
func (r *remote) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	return r.store().ReadBlock(ctx, s, t, buf)
}

// WriteBlock implements venti.BlockWriter.
func (r *remote) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	return r.store().WriteBlock(ctx, t, data)
}

// WriteScored implements venti.ScoredWriter.
func (r *remote) WriteScored(ctx context.Context, s venti.Score, t venti.Type, data []byte) error {
	st := r.store()
	if w, ok := st.(venti.ScoredWriter); ok {
		return w.WriteScored(ctx, s, t, data)
	}
	got, err := st.WriteBlock(ctx, t, data)
	if err == nil && got != s {
		err = venti.ErrCorrupt
	}
	return err
}

// Sync implements venti.Syncer.
func (r *remote) Sync(ctx context.Context) error { return r.store().Sync(ctx) }

// HasBlock implements venti.Prober.
func (r *remote) HasBlock(ctx context.Context, s venti.Score, t venti.Type) (bool, error) {
	return venti.HasBlock(ctx, r.store(), s, t)
}

// Close ends what it has opened.
func (r *remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own == nil {
		return nil
	}
	return r.own.Close()
}
