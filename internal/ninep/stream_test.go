package ninep_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strata/internal/ninep"
)

// An aheadFile counts the reads that are under way, and holds each until as
// many are as the test wants.
type aheadFile struct {
	block
	most  int // bytes of one read, if not 0
	want  int32
	now   atomic.Int32
	there chan struct{} // closed when want are
}

func (f *aheadFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if n := f.now.Add(1); n == f.want {
		close(f.there)
	}
	if f.want > 0 {
		select {
		case <-f.there:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if f.most > 0 {
		p = p[:min(len(p), f.most)]
	}
	return f.block.ReadAt(ctx, p, off)
}

// TestStream reads files from front to back, by socket and by memory.
func TestStream(t *testing.T) {
	all := pattern(3<<20 + 12345)
	for _, tc := range []struct {
		name  string
		msize int
		most  int
		want  int32
		off   int64
	}{
		{"from the start", 0, 0, 0, 0},
		{"four messages of a megabyte ahead", 0, 0, 4, 0},
		{"sixteen small messages ahead", 8192, 0, 16, 0},
		{"from the middle", 65536, 0, 0, 1 << 20},
		{"beyond the end", 65536, 0, 0, 4 << 20},
		{"short reads", 65536, 10_000, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := &aheadFile{block: all, most: tc.most, want: tc.want, there: make(chan struct{})}
			tree := benchTreeOf(file, int64(len(all)))
			_, root := dial(t, tree, ninep.ClientConfig{Msize: tc.msize})
			roots := []*ninep.File{root}
			if tc.want == 0 {
				_, root := local(t, tree, ninep.ClientConfig{})
				roots = append(roots, root)
			}
			for i, root := range roots {
				f := mustWalk(t, root, "f")
				if err := f.Open(t.Context(), ninep.OREAD); err != nil {
					t.Fatal(err)
				}
				var got []byte
				for p, err := range f.Stream(t.Context(), tc.off) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, p...)
				}
				if want := all[min(tc.off, int64(len(all))):]; !bytes.Equal(got, want) {
					t.Errorf("way %d: %d bytes, want %d, or they differ", i, len(got), len(want))
				}
				// One who stops early leaves nothing behind: what is in flight is flushed.
				for range f.Stream(t.Context(), 0) {
					break
				}
				if _, err := f.Stat(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestAnswersNobodyTakes has more answers wait for their askers than there are
// tags, while others want tags.
func TestAnswersNobodyTakes(t *testing.T) {
	all := pattern(1 << 20)
	_, root := dial(t, benchTreeOf(block(all), int64(len(all))), ninep.ClientConfig{Msize: 8192})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func() *ninep.File {
		f := mustWalk(t, root, "f")
		if err := f.Open(ctx, ninep.OREAD); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for range 8 { // each has sixteen answers in flight
		next, stop := iter.Pull2(open().Stream(ctx, 0))
		defer stop()
		if _, err, ok := next(); !ok || err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 16 {
		f := open()
		wg.Go(func() {
			got := make([]byte, len(all))
			if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, all) {
				t.Errorf("a read beside others: %v, or what it has read differs", err)
			}
		})
	}
	wg.Wait()
}

// benchTreeOf is a tree whose file f has n bytes.
func benchTreeOf(r ninep.Reader, n int64) ninep.FS {
	return fixedFS{ninep.NewDir(ninep.Dir{Name: "/", Qid: ninep.Qid{Path: 1}}, map[string]ninep.Node{
		"f": ninep.NewFile(ninep.Dir{Name: "f", Mode: 0444, Length: n, Qid: ninep.Qid{Path: 2}}, r),
	})}
}

// TestStreamEnds has streams end by an error, a cancelled context, and a
// connection lost once too often.
func TestStreamEnds(t *testing.T) {
	tree := newSlowFS()
	l, _, root := newLine(t, tree, ninep.Classic)
	f := mustWalk(t, root, "slow")
	for _, err := range f.Stream(t.Context(), 0) {
		if !errors.Is(err, ninep.ErrFidUse) {
			t.Errorf("not open: %v", err)
		}
	}
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	read := func(ctx context.Context) {
		var last error
		for _, err := range f.Stream(ctx, 0) {
			last = err
		}
		ended <- last
	}
	ctx, cancel := context.WithCancel(t.Context())
	go read(ctx)
	for range 16 {
		<-tree.started
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go read(t.Context())
	for range 3 {
		for range 16 {
			<-tree.started
		}
		l.cut()
	}
	if err := <-ended; err == nil {
		t.Error("a stream outlived three connections")
	}
}
