package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"strata/tests/harness"
)

// written makes a store with s's programs, writes some MB to it and stops the
// server, so that an arena or more are full.
func written(t *testing.T, s harness.Suite, seed int) (st *harness.Store, scores []string) {
	t.Helper()
	st = s.Format(t, 1<<20, 3)
	srv := s.Serve(t, st)
	for i := range 60 {
		block := random(uint64(seed+i), 25000+i*100)
		if i%2 == 0 {
			clear(block[i*100 : i*100+18000])
		}
		scores = append(scores, strings.TrimSpace(s.Run(t, block, "venti/write", "-h", srv.Addr)))
	}
	stop(t, s, srv)
	// Theirs waits until the disk has been idle for minutes.
	harness.Ours(t).Run(t, nil, "venti/syncindex", st.Conf())
	return st, scores
}

var stamp = regexp.MustCompile(`(?m)^\d{4}/\d{4} \d\d:\d\d:\d\d `)

// need skips the test where a program is not there: plan9port installs some
// only when asked.
func need(t *testing.T, s harness.Suite, names ...string) {
	t.Helper()
	for _, n := range names {
		if !s.Has(n) {
			t.Skipf("this plan9port has no %s", n)
		}
	}
}

// TestToolsPrintTheSame runs the tools that look at partitions, ours and
// theirs, on what either server has written.
func TestToolsPrintTheSame(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/printarenapart", "venti/printarena", "venti/printarenas", "venti/printmap", "venti/clumpstats", "venti/findscore", "venti/readifile")
	for _, writer := range []harness.Suite{ours, theirs} {
		st, scores := written(t, writer, 1)
		for _, args := range [][]string{
			{"venti/printarenapart", st.Arenas()},
			{"venti/printarena", "-o", "794624", st.Arenas()},
			{"venti/printarenas", st.Conf()},
			{"venti/printarenas", st.Conf(), "arena1"},
			{"venti/printmap", st.Conf()},
			{"venti/clumpstats", st.Conf()},
			{"venti/findscore", st.Arenas(), scores[3]},
			{"venti/findscore", st.Arenas(), strings.Repeat("ab", 20)},
			{"venti/readifile", st.Conf()},
			{"venti/rdarena", "-q", st.Arenas(), "arena0"},
		} {
			got, want := ours.Run(t, nil, args[0], args[1:]...), theirs.Run(t, nil, args[0], args[1:]...)
			if got != want {
				t.Errorf("%s's store: %s\nours prints\n%.400s\ntheirs\n%.400s", writer.Name, args, got, want)
			}
		}
		// What they print of the index has no scores, by a fault of theirs.
		if got := strings.Count(ours.Run(t, nil, "venti/printindex", st.Conf()), "\n"); got != len(scores) {
			t.Errorf("%s's store: printindex lists %d entries, want %d", writer.Name, got, len(scores))
		}
		_, got, _ := ours.Try(t, nil, "venti/verifyarena", "-v", st.Arenas())
		_, want, _ := theirs.Try(t, nil, "venti/verifyarena", "-v", st.Arenas())
		if stamp.ReplaceAllString(got, "") != stamp.ReplaceAllString(want, "") {
			t.Errorf("%s's store: verifyarena prints\n%s\ntheirs\n%s", writer.Name, got, want)
		}
	}
}

// TestIndexesChangeHands builds an index of each other's arenas.
func TestIndexesChangeHands(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, p := range []struct{ writer, builder, checker harness.Suite }{{ours, theirs, ours}, {theirs, ours, theirs}, {ours, ours, theirs}} {
		st, scores := written(t, p.writer, 2)
		isect := filepath.Join(st.Dir, "isect")
		if err := os.Remove(isect); err != nil {
			t.Fatal(err)
		}
		// Their buildindex does nothing in sections that are smaller.
		f, err := os.Create(isect)
		if err == nil {
			err = f.Truncate(16 << 20)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		p.builder.Run(t, nil, "venti/fmtisect", "isect", isect)
		p.builder.Run(t, nil, "venti/fmtindex", st.Conf())
		p.builder.Run(t, nil, "venti/buildindex", st.Conf())
		tmp := filepath.Join(t.TempDir(), "tmp")
		if err := os.WriteFile(tmp, make([]byte, 20<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		p.checker.Run(t, nil, "venti/checkindex", st.Conf(), tmp)
		srv := p.checker.Serve(t, st)
		for _, score := range scores {
			p.checker.Run(t, nil, "venti/read", "-h", srv.Addr, "-t", "0", score)
		}
		srv.Kill()
	}
}

// TestMirrorsChangeHands copies partitions, each with the other's programs,
// and has the third party check the copy.
func TestMirrorsChangeHands(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/mirrorarenas", "venti/cmparenas", "venti/reseal")
	for _, p := range []struct{ writer, mirrorer, checker harness.Suite }{{ours, theirs, ours}, {theirs, ours, theirs}, {ours, ours, theirs}} {
		st, _ := written(t, p.writer, 3)
		dst := p.mirrorer.Format(t, 1<<20, 3)
		for range 2 {
			p.mirrorer.Run(t, nil, "venti/mirrorarenas", st.Arenas(), dst.Arenas())
		}
		p.checker.Run(t, nil, "venti/verifyarena", dst.Arenas())
		p.checker.Run(t, nil, "venti/checkarenas", "-a", dst.Arenas())
		p.checker.Run(t, nil, "venti/reseal", dst.Arenas())
		ours.Run(t, nil, "venti/cmparenas", st.Arenas(), dst.Arenas())
	}
}

// TestArenasCross brings arenas from either server to the other with rdarena
// and wrarena.
func TestArenasCross(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/rdarena", "venti/wrarena")
	for _, p := range []struct{ writer, reader, sender, server harness.Suite }{
		{ours, theirs, ours, theirs}, {theirs, ours, theirs, ours}, {ours, ours, theirs, ours}, {theirs, theirs, ours, ours},
	} {
		t.Run(fmt.Sprintf("%s to %s by %s", p.writer.Name, p.server.Name, p.sender.Name), func(t *testing.T) {
			st, scores := written(t, p.writer, 4)
			to := p.server.Format(t, 8<<20, 1)
			srv := p.server.Serve(t, to)
			for _, arena := range []string{"arena0", "arena1", "arena2"} {
				dump := filepath.Join(t.TempDir(), arena)
				if err := os.WriteFile(dump, []byte(p.reader.Run(t, nil, "venti/rdarena", "-q", st.Arenas(), arena)), 0o600); err != nil {
					t.Fatal(err)
				}
				p.sender.Run(t, nil, "venti/wrarena", "-h", srv.Addr, dump)
			}
			for i, score := range scores {
				want := random(uint64(4+i), 25000+i*100)
				if i%2 == 0 {
					clear(want[i*100 : i*100+18000])
				}
				if got := ours.Run(t, nil, "venti/read", "-h", srv.Addr, "-t", "0", score); !bytes.Equal([]byte(got), want) {
					t.Fatalf("block %d differs", i)
				}
			}
		})
	}
}

// TestFixedPartition has their programs judge what our fixarenas made right.
func TestFixedPartition(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	st, scores := written(t, theirs, 5)
	f, err := os.OpenFile(st.Arenas(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{256 << 10, 794624, 794624 + 1<<20 - 8192} {
		if _, err := f.WriteAt(make([]byte, 600), off); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	ours.Run(t, nil, "venti/fixarenas", "-f", "-a", "1m", st.Arenas())
	theirs.Run(t, nil, "venti/checkarenas", "-a", st.Arenas())
	srv := theirs.Serve(t, st)
	for _, score := range scores {
		theirs.Run(t, nil, "venti/read", "-h", srv.Addr, "-t", "0", score)
	}
}
