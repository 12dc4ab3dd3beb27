package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/tests/harness"
	"strata/venti"
)

// The whole trial is a million blocks and 50 kills of each server. Each of
// STRATA_TRIAL stands for a twentieth of the blocks.
const (
	allBlocks   = 1_000_000
	trialBlocks = allBlocks / 20
	trialKills  = 50
)

// million returns how many blocks to write, and how often to kill.
func million(t *testing.T) (blocks, kills int) {
	text := os.Getenv("STRATA_TRIAL")
	if text == "" {
		return 4000, 4
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("STRATA_TRIAL=%q is not a positive number", text)
	}
	return min(allBlocks, n*trialBlocks), trialKills
}

// sized makes a block of 1 byte to 56 KiB from its number: as many are of 1 to
// 2 bytes as of 16 to 32 KiB. Half of them compress.
func sized(seed uint64) (venti.Type, []byte) {
	rng := rand.New(rand.NewPCG(seed, 11))
	n := int(math.Exp(rng.Float64() * math.Log(venti.MaxBlockSize+1)))
	b := make([]byte, min(max(n, 1), venti.MaxBlockSize))
	mask := uint64(math.MaxUint64)
	if seed%2 == 0 {
		mask = 0x0f000f030f000f07
	}
	var v uint64
	for i := range b {
		if i%8 == 0 {
			v = rng.Uint64() & mask
		}
		b[i] = byte(v >> (i % 8 * 8))
	}
	return venti.Type(rng.IntN(17)), b
}

// TestMillionBlocks writes blocks to two servers, both of which are killed and
// started again all the while, and then reads all of them back from both, and
// compares.
func TestMillionBlocks(t *testing.T) {
	ours := harness.Ours(t)
	blocks, kills := million(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const arena = 64 << 20
	space := int64(blocks) * 5600 // what blocks take on average, and some more
	var stores [2]*harness.Store
	for i := range stores {
		stores[i] = ours.Format(t, arena, int(space/arena)+2)
	}
	t.Run("write", func(t *testing.T) {
		for i, st := range stores {
			t.Run(fmt.Sprint("server ", i), func(t *testing.T) {
				t.Parallel()
				v := &victim{store: st, blocks: blocks, kills: kills, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
				v.run(t)
			})
		}
	})
	if t.Failed() {
		return
	}
	var clients [2]*venti.Client
	for i, st := range stores {
		for _, args := range [][]string{
			{"venti/checkarenas", "-a", st.Arenas()},
			{"venti/checkindex", st.Conf(), filepath.Join(t.TempDir(), "tmp")},
		} {
			cmd := ours.Command(t.Context(), args[0], args[1:]...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s of server %d: %v\n%s", args[0], i, err, out)
			}
		}
		c, err := venti.Dial(t.Context(), ours.Serve(t, st).Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients[i] = c
	}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(64)
	for n := range blocks {
		group.Go(func() error { return compare(ctx, n, clients[:]...) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d blocks, read back from two servers that were killed %d times each", blocks, kills)
}

// compare reads a block from servers and compares it with what was written.
func compare(ctx context.Context, n int, from ...*venti.Client) error {
	typ, want := sized(uint64(n))
	score := venti.ScoreOf(want)
	buf := make([]byte, venti.MaxBlockSize)
	for i, c := range from {
		k, err := c.ReadBlock(ctx, score, typ, buf)
		if err == nil && !bytes.Equal(buf[:k], want) {
			err = fmt.Errorf("%d other bytes came back", k)
		}
		if err != nil {
			return fmt.Errorf("block %d of %d bytes and type %v, server %d of %d: %w", n, len(want), typ, i, len(from), err)
		}
	}
	return nil
}

// A victim is a server that is killed while blocks are written to it.
type victim struct {
	store         *harness.Store
	blocks, kills int
	rng           *rand.Rand

	srv    *harness.Server
	client *venti.Client
}

func (v *victim) start(t *testing.T) {
	t.Helper()
	v.srv = harness.Ours(t).Serve(t, v.store)
	var err error
	if v.client, err = venti.Dial(t.Context(), v.srv.Addr); err != nil {
		t.Fatal(err)
	}
}

// run writes all blocks, in batches that end with a sync. In some of them the
// server is killed; then some blocks of earlier ones are read, and the batch is
// written again.
func (v *victim) run(t *testing.T) {
	v.start(t)
	size := max(1, v.blocks/(3*v.kills))
	took := 100 * time.Millisecond // of a batch
	killed := 0
	for from := 0; from < v.blocks; {
		to := min(from+size, v.blocks)
		due := killed < v.kills*to/v.blocks
		var timer *time.Timer
		if due {
			timer = time.AfterFunc(time.Duration(v.rng.Int64N(int64(took))), v.srv.Kill)
		}
		start := time.Now()
		err := v.write(t.Context(), from, to)
		if err == nil {
			took = time.Since(start) + 1
		}
		if !due {
			if err != nil {
				t.Fatalf("blocks from %d on: %v\n%s", from, err, v.srv.Log())
			}
			from = to
			continue
		}
		timer.Stop()
		v.srv.Kill()
		killed++
		v.client.Close()
		v.start(t)
		if err == nil { // the kill came after the batch's sync
			from = to
		}
		for range min(from, 200) {
			if err := compare(t.Context(), v.rng.IntN(from), v.client); err != nil {
				t.Fatalf("after kill %d, acknowledged by a sync: %v\n%s", killed, err, v.srv.Log())
			}
		}
	}
	if killed != v.kills {
		t.Errorf("killed %d times, want %d", killed, v.kills)
	}
	v.client.Close()
	v.srv.Stop(t)
}

// write writes blocks and syncs, at the end and now and then.
func (v *victim) write(ctx context.Context, from, to int) error {
	var group errgroup.Group
	group.SetLimit(64)
	for n := from; n < to; n++ {
		group.Go(func() error {
			typ, data := sized(uint64(n))
			_, err := v.client.WriteBlock(ctx, typ, data)
			if err == nil && n%500 == 0 {
				err = v.client.Sync(ctx)
			}
			return err
		})
	}
	return errors.Join(group.Wait(), v.client.Sync(ctx))
}
