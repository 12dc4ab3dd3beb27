package interop

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"strata/tests/harness"
)

// store writes some blocks, syncs and returns their scores.
func store(t *testing.T, addr string, seed uint64) []string {
	t.Helper()
	ours := harness.Ours(t)
	var scores []string
	for i := range uint64(30) {
		block := random(seed<<32+i, 20_000+int(i))
		clear(block[:5000])
		scores = append(scores, strings.TrimSpace(ours.Run(t, block, "venti/write", "-h", addr)))
	}
	ours.Run(t, nil, "venti/sync", "-h", addr)
	return scores
}

// readAll has the blocks read by the suite's own client.
func readAll(t *testing.T, s harness.Suite, addr string, scores []string) {
	t.Helper()
	for _, score := range scores {
		s.Run(t, nil, "venti/read", "-h", addr, "-t", "0", score)
	}
}

// makeFile makes a file of zeros, or an old one of its size.
func makeFile(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// checkers checks a store that nobody serves with both makes' programs.
func checkers(t *testing.T, st *harness.Store) {
	t.Helper()
	checkClean(t, harness.Plan9(t), st)
	checkClean(t, harness.Ours(t), st)
}

// TestFormattedByTheOther has a store that one make has formatted, in each of
// the formats, filled by the other.
func TestFormattedByTheOther(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, p := range []struct{ formatter, server harness.Suite }{{ours, theirs}, {theirs, ours}} {
		for _, f := range []struct {
			name                  string
			arenas, isect, filter []string
		}{
			{"usual", nil, nil, nil},
			{"old", []string{"-4"}, []string{"-1"}, nil},
			{"small blocks", []string{"-b", "4k"}, []string{"-b", "1k"}, nil},
			{"large blocks", []string{"-b", "64k"}, []string{"-b", "32k"}, nil},
			{"sized filter", nil, nil, []string{"-n", "10000", "-s", "2m"}},
		} {
			t.Run(fmt.Sprintf("%s, %s to %s", f.name, p.formatter.Name, p.server.Name), func(t *testing.T) {
				st := p.formatter.Format(t, 2<<20, 3)
				for _, name := range []string{"arenas", "isect"} {
					info, err := os.Stat(filepath.Join(st.Dir, name))
					if err != nil {
						t.Fatal(err)
					}
					makeFile(t, filepath.Join(st.Dir, name), info.Size())
				}
				p.formatter.Run(t, nil, "venti/fmtarenas", append(f.arenas, "-a", "2m", "arena", st.Arenas())...)
				p.formatter.Run(t, nil, "venti/fmtisect", append(f.isect, "isect", filepath.Join(st.Dir, "isect"))...)
				if f.filter != nil {
					makeFile(t, filepath.Join(st.Dir, "bloom"), 2<<20)
					p.formatter.Run(t, nil, "venti/fmtbloom", append(f.filter, filepath.Join(st.Dir, "bloom"))...)
				}
				p.formatter.Run(t, nil, "venti/fmtindex", st.Conf())
				srv := p.server.Serve(t, st)
				scores := store(t, srv.Addr, 1)
				stop(t, p.server, srv)
				ours.Run(t, nil, "venti/syncindex", st.Conf()) // theirs waits for minutes of idle time
				if f.filter == nil {                           // their checkindex takes filters of 32 hashes only
					checkers(t, st)
				} else {
					checkClean(t, ours, st)
				}
				srv = p.formatter.Serve(t, st)
				readAll(t, p.server, srv.Addr, scores)
			})
		}
	}
}

// TestAppendedArenas has one make add arenas to the other's index.
func TestAppendedArenas(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, p := range []struct{ first, second harness.Suite }{{ours, theirs}, {theirs, ours}} {
		st := p.first.Format(t, 1<<20, 1)
		srv := p.first.Serve(t, st)
		scores := store(t, srv.Addr, 1)
		stop(t, p.first, srv)
		more := filepath.Join(st.Dir, "more")
		makeFile(t, more, 3<<20)
		p.second.Run(t, nil, "venti/fmtarenas", "-a", "1m", "more", more)
		edit(t, st, "arenas "+st.Arenas()+"\n", "arenas "+st.Arenas()+"\narenas "+more+"\n")
		p.second.Run(t, nil, "venti/fmtindex", "-a", st.Conf())
		srv = p.second.Serve(t, st)
		for i := range uint64(2) { // the first arena has no room for them
			scores = append(scores, store(t, srv.Addr, 2+i)...)
		}
		stop(t, p.second, srv)
		ours.Run(t, nil, "venti/syncindex", st.Conf())
		checkers(t, st)
		if out := ours.Run(t, nil, "venti/printarenapart", more); !regexp.MustCompile(`(?m)^arena more0 .* clumps=[1-9]`).MatchString(out) {
			t.Errorf("%s added what %s filled, but nothing is in it:\n%s", p.second.Name, p.first.Name, out)
		}
		srv = p.first.Serve(t, st)
		readAll(t, p.first, srv.Addr, scores)
	}
}

// TestEmbeddedConfigurations has one make's conf store a configuration in a
// partition, and the other's programs take it from there.
func TestEmbeddedConfigurations(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, p := range []struct{ writer, reader harness.Suite }{{ours, theirs}, {theirs, ours}} {
		st := ours.Format(t, 1<<20, 2)
		text, err := os.ReadFile(st.Conf())
		if err != nil {
			t.Fatal(err)
		}
		conf := func(s harness.Suite, args ...string) string {
			t.Helper()
			cmd := s.Command(t.Context(), "venti/conf", args...)
			// Theirs is a script, which finds its tools in the path.
			cmd.Env = append(cmd.Env, "PATH="+s.Bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s's conf %s: %v\n%s", s.Name, args, err, out)
			}
			return string(out)
		}
		conf(p.writer, "-w", st.Arenas(), st.Conf())
		if got := conf(p.reader, st.Arenas()); strings.TrimRight(got, "\n") != strings.TrimRight(string(text), "\n") {
			t.Errorf("%s stored a configuration that %s prints as %q, want %q", p.writer.Name, p.reader.Name, got, text)
		}
		if err := os.Remove(st.Conf()); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(st.Arenas(), st.Conf()); err != nil {
			t.Fatal(err)
		}
		srv := p.reader.Serve(t, st)
		scores := store(t, srv.Addr, 3)
		stop(t, p.reader, srv)
		ours.Run(t, nil, "venti/syncindex", st.Arenas())
		checkers(t, st)
		readAll(t, ours, p.writer.Serve(t, st).Addr, scores)
	}
}

// TestSyncindexCrosses has a server killed, and its index brought up to date
// by the other make's syncindex. Theirs waits for two minutes of idle time, so
// it runs in trials only.
func TestSyncindexCrosses(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, p := range []struct{ writer, other harness.Suite }{{theirs, ours}, {ours, theirs}} {
		t.Run(p.writer.Name+" killed", func(t *testing.T) {
			if p.other.Name == "plan9port" && os.Getenv("STRATA_TRIAL") == "" {
				t.Skip("STRATA_TRIAL is not set: plan9port's syncindex takes two minutes")
			}
			st := p.writer.Format(t, 1<<20, 3)
			srv := p.writer.Serve(t, st)
			scores := store(t, srv.Addr, 4)
			srv.Kill()
			cmd := p.other.Command(ctxFor(t, 5*time.Minute), "venti/syncindex", st.Conf())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s's syncindex: %v\n%s", p.other.Name, err, out)
			}
			checkers(t, st)
			if n := strings.Count(ours.Run(t, nil, "venti/printindex", st.Conf()), "\n"); n != len(scores) {
				t.Errorf("the index has %d entries, want %d", n, len(scores))
			}
			readAll(t, p.writer, p.writer.Serve(t, st).Addr, scores)
		})
	}
}

// sealedByServer fills an arena with a suite's server, and waits until it has
// its seal.
func sealedByServer(t *testing.T, s harness.Suite) (st *harness.Store, scores []string) {
	t.Helper()
	st = s.Format(t, 1<<20, 2)
	flags, get := []string(nil), func(string) {}
	if s.Name == "plan9port" {
		port := freePort(t)
		flags = []string{"-h", "tcp!127.0.0.1!" + port}
		get = func(path string) {
			r, err := http.Get("http://127.0.0.1:" + port + path)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
	}
	srv := s.Serve(t, st, flags...)
	for i := range uint64(3) {
		scores = append(scores, store(t, srv.Addr, 5+i)...)
	}
	// Theirs waits for minutes of idle time, unless it is told not to.
	get("/set?name=manualscheduling&value=1")
	get("/set?name=icachesleeptime&value=0")
	get("/set?name=arenasumsleeptime&value=0")
	for deadline := time.Now().Add(time.Minute); ; {
		get("/flushdcache")
		get("/flushicache")
		_, stderr, _ := harness.Ours(t).Try(t, nil, "venti/verifyarena", "-v", st.Arenas(), "arena0")
		if strings.Contains(stderr, "arena0: verified score") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not seal a full arena:\n%s", s.Name, stderr)
		}
	}
	stop(t, s, srv)
	return st, scores
}

// TestSealsCross has an arena sealed by each server verified by the other's
// program, and sealed anew by it, which must change nothing.
func TestSealsCross(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/reseal")
	for _, p := range []struct{ sealer, other harness.Suite }{{ours, theirs}, {theirs, ours}} {
		st, _ := sealedByServer(t, p.sealer)
		_, stderr, err := p.other.Try(t, nil, "venti/verifyarena", "-v", st.Arenas(), "arena0")
		if err != nil || !strings.Contains(stderr, "arena0: verified score") {
			t.Errorf("sealed by %s, verified by %s: %v\n%s", p.sealer.Name, p.other.Name, err, stderr)
		}
		sealed := ours.Run(t, nil, "venti/rdarena", "-q", st.Arenas(), "arena0")
		_, stderr, err = p.other.Try(t, []byte(sealed), "venti/verifyarena", "-v")
		if err != nil || !strings.Contains(stderr, "verified score") {
			t.Errorf("sealed by %s, verified by %s from a pipe: %v\n%s", p.sealer.Name, p.other.Name, err, stderr)
		}
		p.other.Run(t, nil, "venti/reseal", st.Arenas(), "arena0")
		if again := ours.Run(t, nil, "venti/rdarena", "-q", st.Arenas(), "arena0"); again != sealed {
			t.Errorf("sealed by %s, sealed again by %s: the arena differs", p.sealer.Name, p.other.Name)
		}
		checkers(t, st)
	}
}

// TestDamageCrosses has one make's checkers find what is damaged in what the
// other wrote, and has theirs judge what ours repaired.
func TestDamageCrosses(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	for _, s := range []harness.Suite{ours, theirs} {
		st, scores := sealedByServer(t, s)
		f, err := os.OpenFile(st.Arenas(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// A bit of a sealed arena, in its unused space, so that no clump is lost.
		const at = 794624 + 1<<20 - 3*8192
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{b[0] ^ 4}, at); err != nil {
			t.Fatal(err)
		}
		for _, checker := range []harness.Suite{ours, theirs} {
			// Theirs ends with status 0.
			if _, stderr, _ := checker.Try(t, nil, "venti/verifyarena", st.Arenas()); !strings.Contains(stderr, "arena0: mismatch checksum - found=") {
				t.Errorf("written by %s: verifyarena of %s does not find a damaged arena:\n%s", s.Name, checker.Name, stderr)
			}
		}
		if _, err := f.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}

		// All of the index, and the filter.
		isect, err := os.OpenFile(filepath.Join(st.Dir, "isect"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer isect.Close()
		const buckets = (256 + 8 + 512) << 10
		info, err := isect.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := isect.WriteAt(make([]byte, info.Size()-buckets), buckets); err != nil {
			t.Fatal(err)
		}
		ours.Run(t, nil, "venti/fmtbloom", "-N", "32", filepath.Join(st.Dir, "bloom"))
		tmp := filepath.Join(t.TempDir(), "tmp")
		makeFile(t, tmp, 64<<20)
		for _, checker := range []harness.Suite{ours, theirs} {
			out, _, err := checker.Try(t, nil, "venti/checkindex", st.Conf(), tmp)
			if n := strings.Count(out, "> "); err == nil || n != len(scores) {
				t.Errorf("written by %s: checkindex of %s misses %d of %d entries, %v", s.Name, checker.Name, n, len(scores), err)
			}
		}
		ours.Run(t, nil, "venti/checkindex", "-f", st.Conf())
		checkers(t, st)
		readAll(t, theirs, theirs.Serve(t, st).Addr, scores)
	}
}

// TestArenaThroughAPipe is theirs and ours, rdarena | wrarena, in one pipe.
func TestArenaThroughAPipe(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	st, scores := written(t, theirs, 9)
	srv := theirs.Serve(t, theirs.Format(t, 8<<20, 1))
	for _, arena := range []string{"arena0", "arena1", "arena2"} {
		rd := theirs.Command(t.Context(), "venti/rdarena", "-q", st.Arenas(), arena)
		wr := ours.Command(t.Context(), "venti/wrarena", "-h", srv.Addr, "-")
		var err error
		if wr.Stdin, err = rd.StdoutPipe(); err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		wr.Stderr = &stderr
		for _, cmd := range []*exec.Cmd{rd, wr} {
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		if err := wr.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", arena, err, &stderr)
		}
		if err := rd.Wait(); err != nil {
			t.Error(err)
		}
	}
	readAll(t, theirs, srv.Addr, scores)
}
