package store

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"strata/internal/disk"
	"strata/venti"
)

func TestInfo(t *testing.T) {
	conf, err := Format(t.Context(), t.TempDir(), FormatConfig{Space: 8 << 20, ArenaSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenConf(t.Context(), conf, Config{Interval: -1, Compression: CompressNone})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s)
	var size int64
	for _, b := range blocks(1, 200, 8<<10) {
		mustWrite(t, s, venti.DataType, b)
		size += int64(len(b))
	}
	info := s.Info()
	if info.Index.Name != "main" || info.Index.BlockSize != 8192 || info.Index.TableSize != 512<<10 || info.Encoding != "plain" || info.ReadOnly {
		t.Errorf("info is %+v", info)
	}
	if len(info.Parts) != 1 || !strings.HasSuffix(info.Parts[0], "/arenas") {
		t.Errorf("partitions are %q", info.Parts)
	}
	if sec := info.Index.Sections; len(sec) != 1 || sec[0].Start != 0 || sec[0].Stop != info.Index.Buckets || sec[0].Capacity != 215 {
		t.Errorf("sections are %+v", sec)
	}
	var clumps, uncsize int64
	at := uint64(1 << 20)
	for _, a := range info.Arenas {
		clumps += int64(a.Written.Clumps)
		uncsize += a.Written.UncSize
		if a.Start != at || a.Stop != at+uint64(a.Size) || a.Partition != info.Parts[0] || a.Indexed.Clumps != 0 {
			t.Errorf("arena is %+v", a)
		}
		at = a.Stop
	}
	if clumps != 200 || uncsize != size || !info.Arenas[0].Written.Sealed || info.Arenas[0].Created == 0 {
		t.Errorf("%d clumps of %d bytes; first arena %+v", clumps, uncsize, info.Arenas[0])
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	info = s.Info()
	if a := info.Arenas[0]; a.Indexed != a.Written || !a.Indexed.Sealed {
		t.Errorf("after a flush: %+v", a)
	}
	if st := s.Stats(); st.IndexWriteBytes == 0 || st.IndexWriteBytes%8192 != 0 || st.CacheSize == 0 || st.DirtyBound == 0 {
		t.Errorf("%d bytes written to the index; caches for %d bytes, %d dirty entries", st.IndexWriteBytes, st.CacheSize, st.DirtyBound)
	}
	if b := info.Bloom; b == nil || b.Ones < 200 || b.Ones > 200*32*2 || b.Bits != int64(b.Size)*8 {
		t.Errorf("Bloom filter is %+v", b)
	}
}

func TestLocate(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	defer mustClose(t, s)
	b := blocks(2, 1, 1000)[0]
	score := mustWrite(t, s, venti.DataType, b)
	check := func(when string, want Place) {
		t.Helper()
		got, err := s.Locate(score, venti.DataType)
		if err != nil {
			t.Fatal(err)
		}
		if got.Clump.Score != score || got.ClumpErr != nil || got.IndexErr != nil {
			t.Errorf("%s: %+v", when, got)
		}
		got.Clump = want.Clump
		if got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	want := Place{LumpCache: true, IndexCache: true, Bloom: true, Found: true, Addr: 1 << 20, Arena: "p0a0"}
	check("written", want)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want.Indexed = true
	check("flushed", want)
	s.EmptyLumpCache()
	s.EmptyIndexCache()
	want.LumpCache, want.IndexCache = false, false
	check("emptied", want)

	if p, err := s.Locate(venti.ScoreOf([]byte("x")), venti.DataType); err != nil || p.Found || p.Bloom || p.Indexed {
		t.Errorf("absent: %+v, %v", p, err)
	}
	if _, err := s.Locate(score, venti.Type(200)); !errors.Is(err, venti.ErrBadType) {
		t.Errorf("bad type: %v", err)
	}
	a := s.arenas[0]
	spoil(t, a.part.file, a.Base()+50)
	if p, err := s.Locate(score, venti.DataType); err != nil || !errors.Is(p.ClumpErr, venti.ErrCorrupt) {
		t.Errorf("spoilt: %+v, %v", p, err)
	}
}

func TestHealth(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	if err := s.Health(); err != nil {
		t.Errorf("a new store: %v", err)
	}
	mustWrite(t, s, venti.DataType, []byte("data"))
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpSync {
			return errFault
		}
		return nil
	})
	if err := s.Sync(t.Context()); err == nil {
		t.Error("a failed sync succeeds")
	}
	if err := s.Health(); !errors.Is(err, errFault) || !strings.Contains(err.Error(), "arenas0") {
		t.Errorf("after a failed sync: %v", err)
	}
	s.Close()
	if err := s.Health(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}

	cfg := configOf(small.format(t))
	s = mustOpen(t, cfg)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = s.WriteBlock(t.Context(), venti.DataType, blocks(uint64(100+i), 1, 50000)[0])
	}
	if got := s.Health(); !errors.Is(err, venti.ErrFull) || !errors.Is(got, venti.ErrFull) {
		t.Errorf("full: %v, %v", err, got)
	}
	mustClose(t, s)
	cfg.ReadOnly = true
	s = mustOpen(t, cfg)
	defer mustClose(t, s)
	if err := s.Health(); err != nil {
		t.Errorf("read-only: %v", err)
	}
}

func TestTune(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	defer mustClose(t, s)
	s.Tune(Tuning{IgnoreBloom: true})
	if _, err := s.ReadBlock(t.Context(), venti.ScoreOf([]byte("x")), venti.DataType, nil); !errors.Is(err, venti.ErrNotFound) {
		t.Errorf("absent block: %v", err)
	}
	if st := s.Stats(); st.IndexReads != 1 || st.BloomMisses != 0 || !s.Tuning().IgnoreBloom {
		t.Errorf("%d reads of the index, %d answers of the filter", st.IndexReads, st.BloomMisses)
	}
	if l := s.Latencies(); l.IndexRead.Count() != 1 || l.Read.Count() != 1 || l.Write.Count() != 0 {
		t.Errorf("measured: %+v", l)
	}
}

// TestInfoWhileBusy asks for everything while others write, read, flush and
// empty the caches.
func TestInfoWhileBusy(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	defer mustClose(t, s)
	list := blocks(3, 400, 2000)
	scores := make(chan venti.Score, len(list))
	var writers, askers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := w; i < len(list); i += 4 {
				score, err := s.WriteBlock(t.Context(), venti.DataType, list[i])
				if err != nil {
					t.Error(err)
					return
				}
				scores <- score
				if i%50 == 0 {
					s.Sync(t.Context())
				}
			}
		})
	}
	done := make(chan struct{})
	askers.Go(func() {
		for {
			select {
			case <-done:
				return
			case score := <-scores:
				if p, err := s.Locate(score, venti.DataType); err != nil || !p.Found || p.ClumpErr != nil || !p.Bloom {
					t.Errorf("%+v, %v", p, err)
				}
			}
			s.EmptyLumpCache()
			s.EmptyIndexCache()
			if err := s.Health(); err != nil {
				t.Error(err)
			}
		}
	})
	askers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var written, indexed uint32
			for _, a := range s.Info().Arenas {
				written += a.Written.Clumps
				indexed += a.Indexed.Clumps
			}
			if indexed > written || int64(written) > s.Stats().Clumps {
				t.Errorf("%d clumps of %d are indexed", indexed, written)
			}
			s.Latencies()
			if err := s.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Checkpoint(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	writers.Wait()
	close(done)
	askers.Wait()
	if st, l := s.Stats(), s.Latencies(); st.Clumps != 400 || l.Write.Count() != 400 {
		t.Errorf("%d clumps, %d writes were measured", st.Clumps, l.Write.Count())
	}
}
