// Package crash kills real servers at random moments and looks at what is
// left. STRATA_TRIAL=n runs n times 100 kills under load, and n twentieths of a
// million blocks written to servers that are killed 50 times; without it there
// are a few of both.
package crash

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/tests/harness"
	"strata/venti"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// kills returns how often to kill.
func kills(t *testing.T) int {
	text := os.Getenv("STRATA_TRIAL")
	if text == "" {
		return 8
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("STRATA_TRIAL=%q is not a positive number", text)
	}
	return 100 * n
}

// A block is made from its number alone, so that a list of numbers and scores
// is all that must be remembered of what was acknowledged.
func block(seed uint64) (venti.Type, []byte) {
	rng := rand.New(rand.NewPCG(seed, 7))
	n := 1 + rng.IntN(8192)
	if rng.IntN(20) == 0 {
		n = 1 + rng.IntN(venti.MaxBlockSize)
	}
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := rng.Uint64()
		if rng.IntN(3) == 0 { // so that some blocks compress
			v = 0x6162636465666768
		}
		binary.BigEndian.PutUint64(b[i:], v)
	}
	b[n-1] = 1
	return venti.Type(rng.IntN(17)), b
}

type acked struct {
	seed  uint64
	score venti.Score
}

// load writes blocks from several connections' worth of goroutines until the
// server is gone, and returns those that a sync has acknowledged.
func load(ctx context.Context, addr string, first uint64, writers int) (synced []acked, next uint64, err error) {
	c, err := venti.Dial(ctx, addr)
	if err != nil {
		return nil, first, err
	}
	defer c.Close()
	var mu sync.Mutex
	seed := first
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var pending []acked
			for i := 1; ; i++ {
				mu.Lock()
				mine := seed
				seed++
				mu.Unlock()
				typ, data := block(mine)
				score, err := c.WriteBlock(ctx, typ, data)
				if err != nil {
					return // the server is dead: what this writer did not sync does not count
				}
				pending = append(pending, acked{mine, score})
				if i%(5+7*w) == 0 {
					if c.Sync(ctx) != nil {
						return
					}
					mu.Lock()
					synced = append(synced, pending...)
					mu.Unlock()
					pending = pending[:0]
				}
			}
		})
	}
	wg.Wait()
	return synced, seed, nil
}

// verify reads every block back.
func verify(ctx context.Context, addr string, want []acked) error {
	c, err := venti.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var g errgroup.Group
	g.SetLimit(64)
	for _, a := range want {
		g.Go(func() error {
			typ, data := block(a.seed)
			buf := make([]byte, venti.MaxBlockSize)
			n, err := c.ReadBlock(ctx, a.score, typ, buf)
			if err != nil {
				return fmt.Errorf("block %d of type %v, acknowledged by a sync: %w", a.seed, typ, err)
			}
			if string(buf[:n]) != string(data) {
				return fmt.Errorf("block %d came back different", a.seed)
			}
			return nil
		})
	}
	return g.Wait()
}

func TestKillUnderLoad(t *testing.T) {
	ours := harness.Ours(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var all []acked
	next := uint64(1)
	var st *harness.Store
	rounds := 0
	for range kills(t) {
		// A fresh store now and then, since these arenas hold some tens of kills.
		if st == nil || rounds == 25 {
			st, all, rounds = ours.Format(t, 4<<20, 60), nil, 0
		}
		rounds++
		srv := ours.Serve(t, st)
		wait := time.Duration(rng.IntN(300)) * time.Millisecond
		timer := time.AfterFunc(wait, srv.Kill)
		synced, n, err := load(t.Context(), srv.Addr, next, 8)
		timer.Stop()
		srv.Kill()
		// A dial may fail only because the kill came first.
		if err != nil && len(synced) > 0 {
			t.Fatal(err)
		}
		next = n
		all = append(all, synced...)

		srv = ours.Serve(t, st)
		if err := verify(t.Context(), srv.Addr, all); err != nil {
			t.Fatalf("after a kill at %v (round %d): %v\n%s", wait, rounds, err, srv.Log())
		}
		srv.Stop(t)
		if out, errOut, err := ours.Try(t, nil, "venti/checkarenas", "-a", st.Arenas()); err != nil {
			t.Fatalf("checkarenas after round %d: %v\n%s%s", rounds, err, out, errOut)
		}
		if out, errOut, err := ours.Try(t, nil, "venti/checkindex", st.Conf(), filepath.Join(t.TempDir(), "tmp")); err != nil {
			t.Fatalf("checkindex after round %d: %v\n%s%s", rounds, err, out, errOut)
		}
	}
	if len(all) == 0 {
		t.Fatal("no sync was ever acknowledged: the test showed nothing")
	}
	t.Logf("%d kills; %d blocks of the last store acknowledged by a sync and read back", kills(t), len(all))
}
