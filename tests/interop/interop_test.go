// Package interop tries our programs against plan9port's, in both
// directions. Every test needs $PLAN9 to name a built plan9port and skips
// where it does not.
package interop

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/tests/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// pair is who serves and who asks.
type pair struct {
	name           string
	server, client harness.Suite
}

func pairs(t *testing.T) []pair {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	return []pair{
		{"our server, their client", ours, theirs},
		{"their server, our client", theirs, ours},
		{"our server, our client", ours, ours},
	}
}

// stop ends a server so that its files are whole: ours by SIGTERM; theirs,
// which loses what it holds at SIGTERM, after a sync, by SIGKILL.
func stop(t *testing.T, s harness.Suite, srv *harness.Server) {
	t.Helper()
	if s.Name == "plan9port" {
		s.Run(t, nil, "venti/sync", "-h", srv.Addr)
		srv.Kill()
		return
	}
	srv.Stop(t)
}

func random(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestReadWriteEveryType(t *testing.T) {
	for _, p := range pairs(t) {
		t.Run(p.name, func(t *testing.T) {
			st := p.server.Format(t, 4<<20, 2)
			srv := p.server.Serve(t, st)
			for typ := range 17 {
				block := random(uint64(typ), 100+500*typ)
				score := strings.TrimSpace(p.client.Run(t, block, "venti/write", "-h", srv.Addr, "-t", fmt.Sprint(typ)))
				got := p.client.Run(t, nil, "venti/read", "-h", srv.Addr, "-t", fmt.Sprint(typ), score)
				if got != string(block) {
					t.Errorf("type %d: %d bytes came back, want %d", typ, len(got), len(block))
				}
			}
			p.client.Run(t, nil, "venti/sync", "-h", srv.Addr)
			if _, _, err := p.client.Try(t, nil, "venti/read", "-h", srv.Addr, "-t", "0", strings.Repeat("ab", 20)); err == nil {
				t.Error("reading a block that was never written succeeds")
			}
		})
	}
}

func TestRandtest(t *testing.T) {
	theirs := harness.Plan9(t)
	if !theirs.Has("venti/randtest") {
		t.Skip("this plan9port has no venti/randtest (it is not installed by default)")
	}
	ours := harness.Ours(t)
	srv := ours.Serve(t, ours.Format(t, 32<<20, 3))
	for _, args := range [][]string{
		{"-n", "20000000", "-b", "8192"},
		{"-n", "20000000", "-b", "8192", "-P", "-m", "64"},
		{"-n", "8000000", "-b", "512", "-p", "50"},
		{"-n", "20000000", "-b", "57344", "-m", "200"},
	} {
		theirs.Run(t, nil, "venti/randtest", append([]string{"-h", srv.Addr}, args...)...)
	}
}

// makeTree fills dir with files of many sizes.
func makeTree(t *testing.T, dir string) {
	t.Helper()
	for i, size := range []int{0, 1, 100, 8191, 8192, 8193, 409 * 8192, 409*8192 + 1, 5 << 20} {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%3))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		data := random(uint64(i), size)
		if i%2 == 1 {
			clear(data[size/3 : size/2])
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", size)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func equalTrees(t *testing.T, a, b string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(a, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(b, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs", rel)
		}
		n++
		return nil
	})
	if err != nil || n == 0 {
		t.Fatalf("compared %d files: %v", n, err)
	}
}

// vacIn archives dir below its parent and returns the vac score.
func vacIn(t *testing.T, theirs harness.Suite, addr, parent, name string) string {
	t.Helper()
	cmd := theirs.Command(t.Context(), "vac", "-h", addr, name)
	cmd.Dir = parent
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("vac: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func unvacInto(t *testing.T, theirs harness.Suite, addr, dir, score string) {
	t.Helper()
	cmd := theirs.Command(t.Context(), "unvac", "-h", addr, score)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unvac: %v\n%s", err, out)
	}
}

func TestVacUnvacAgainstOurServer(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	work := t.TempDir()
	makeTree(t, filepath.Join(work, "tree"))
	st := ours.Format(t, 8<<20, 4)
	srv := ours.Serve(t, st)
	score := vacIn(t, theirs, srv.Addr, work, "tree")

	// Through a clean stop and a start, too.
	srv.Stop(t)
	srv = ours.Serve(t, st)
	out := t.TempDir()
	unvacInto(t, theirs, srv.Addr, out, score)
	equalTrees(t, filepath.Join(work, "tree"), filepath.Join(out, "tree"))
}

func TestCopyBetweenServers(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	work := t.TempDir()
	makeTree(t, filepath.Join(work, "tree"))
	for _, tc := range []struct {
		name           string
		from, to, tool harness.Suite
		flags          []string
	}{
		{"our copy, theirs to ours", theirs, ours, ours, nil},
		{"our copy -f, ours to theirs", ours, theirs, ours, []string{"-f"}},
		{"their copy, ours to theirs", ours, theirs, theirs, nil},
		{"their copy -m, theirs to ours", theirs, ours, theirs, []string{"-m"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := tc.from.Serve(t, tc.from.Format(t, 8<<20, 4))
			dst := tc.to.Serve(t, tc.to.Format(t, 8<<20, 4))
			score := vacIn(t, theirs, src.Addr, work, "tree")
			tc.tool.Run(t, nil, "venti/copy", append(tc.flags, src.Addr, dst.Addr, score)...)
			src.Kill()
			out := t.TempDir()
			unvacInto(t, theirs, dst.Addr, out, score)
			equalTrees(t, filepath.Join(work, "tree"), filepath.Join(out, "tree"))
		})
	}
}

// TestPartitionsChangeHands lets one make of server write, and the other check
// and serve.
func TestPartitionsChangeHands(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	work := t.TempDir()
	makeTree(t, filepath.Join(work, "tree"))
	for _, tc := range []struct {
		name           string
		writer, reader harness.Suite
		kill           bool // the writer ends by SIGKILL after the archive's sync
	}{
		{"ours, stopped, to theirs", ours, theirs, false},
		{"ours, killed, to theirs", ours, theirs, true},
		{"theirs, synced and killed, to ours", theirs, ours, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := tc.writer.Format(t, 2<<20, 10)
			srv := tc.writer.Serve(t, st)
			score := vacIn(t, theirs, srv.Addr, work, "tree")
			if tc.kill {
				srv.Kill()
			} else {
				stop(t, tc.writer, srv)
				checkClean(t, theirs, st)
				checkClean(t, ours, st)
			}
			srv = tc.reader.Serve(t, st)
			out := t.TempDir()
			unvacInto(t, theirs, srv.Addr, out, score)
			equalTrees(t, filepath.Join(work, "tree"), filepath.Join(out, "tree"))
			// And it goes on writing where the other left off.
			again := filepath.Join(work, "tree2")
			if err := os.MkdirAll(again, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(again, "new"), random(uint64(len(tc.name)), 1<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			score2 := vacIn(t, theirs, srv.Addr, work, "tree2")
			stop(t, tc.reader, srv)
			srv = tc.writer.Serve(t, st)
			out = t.TempDir()
			unvacInto(t, theirs, srv.Addr, out, score)
			unvacInto(t, theirs, srv.Addr, out, score2)
			equalTrees(t, filepath.Join(work, "tree"), filepath.Join(out, "tree"))
			equalTrees(t, again, filepath.Join(out, "tree2"))
		})
	}
}

// checkClean runs a suite's checkers over a store that nobody serves.
func checkClean(t *testing.T, s harness.Suite, st *harness.Store) {
	t.Helper()
	for _, args := range [][]string{
		{"venti/checkarenas", "-a", st.Arenas()},
		{"venti/checkindex", st.Conf(), filepath.Join(t.TempDir(), "tmp")},
		{"venti/verifyarena", st.Arenas()},
	} {
		if !s.Has(args[0]) {
			continue
		}
		if args[0] == "venti/checkindex" {
			f, err := os.Create(args[2])
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(64 << 20); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		stdout, stderr, err := s.Try(t, nil, args[0], args[1:]...)
		if err != nil {
			t.Errorf("%s %s: %v\n%s%s", s.Name, args[0], err, stdout, stderr)
		}
		// plan9port's checkers exit 0 whatever they find.
		for _, bad := range []string{"mismatch", "corrupt", "missing", "bad", "warning", "incorrect", "failed"} {
			if all := stdout + stderr; strings.Contains(all, bad) {
				t.Errorf("%s %s says:\n%s", s.Name, args[0], all)
				break
			}
		}
	}
}

// TestVbackupAgainstOurServer runs vbackup against either server: the root must
// be the same, and so must the image that vcat makes of it.
func TestVbackupAgainstOurServer(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	image := filepath.Join(t.TempDir(), "fs")
	mkext2(t, image)
	var scores, copies []string
	for _, s := range []harness.Suite{ours, theirs} {
		srv := s.Serve(t, s.Format(t, 8<<20, 4))
		// vbackup and vcat find the server in $venti alone.
		client := theirs
		client.Env = append(slices.Clone(theirs.Env), "venti="+srv.Addr)
		out := client.Run(t, nil, "vbackup", "-w", "8", image)
		i := strings.Index(out, "ext2:")
		if i < 0 {
			t.Fatalf("vbackup printed %q", out)
		}
		score := out[i : i+5+40]
		scores = append(scores, score)
		copies = append(copies, vcat(t, client, score))
	}
	if scores[0] != scores[1] {
		t.Errorf("the root is %s on our server, %s on theirs", scores[0], scores[1])
	}
	if copies[0] != copies[1] || len(copies[0]) == 0 {
		t.Errorf("vcat gives %d bytes from our server that differ from the %d from theirs", len(copies[0]), len(copies[1]))
	}
}

// vcat runs plan9port's vcat, which seeks in its output, and returns what it
// wrote.
func vcat(t *testing.T, client harness.Suite, score string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := client.Command(t.Context(), "vcat", "-z", score)
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Fatalf("vcat: %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTwoPartitions has our server fill two arena partitions by turns. Theirs
// must take that, go on with it, and give it back.
func TestTwoPartitions(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	work := t.TempDir()
	makeTree(t, filepath.Join(work, "tree"))
	makeTree(t, filepath.Join(work, "tree2"))
	if err := os.WriteFile(filepath.Join(work, "tree2", "new"), random(99, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill=%v", kill), func(t *testing.T) {
			second := filepath.Join(t.TempDir(), "arenas2")
			st := ours.Format(t, 4<<20, 6)
			if err := os.WriteFile(second, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(second, 25<<20); err != nil {
				t.Fatal(err)
			}
			ours.Run(t, nil, "venti/fmtarenas", "-a", fmt.Sprint(4<<20), "other", second)
			conf, err := os.ReadFile(st.Conf())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(st.Conf(), append(conf, "arenas "+second+"\n"...), 0o644); err != nil {
				t.Fatal(err)
			}
			ours.Run(t, nil, "venti/fmtindex", st.Conf())
			srv := ours.Serve(t, st)
			score := vacIn(t, theirs, srv.Addr, work, "tree")
			if kill {
				srv.Kill()
			} else {
				srv.Stop(t)
				for _, part := range []string{st.Arenas(), second} {
					if out := ours.Run(t, nil, "venti/checkarenas", "-v", part); !strings.Contains(out, "compressed clumps=") {
						t.Errorf("nothing is in %s:\n%s", filepath.Base(part), out)
					}
				}
			}
			srv = theirs.Serve(t, st)
			score2 := vacIn(t, theirs, srv.Addr, work, "tree2")
			for _, s := range []harness.Suite{theirs, ours} {
				out := t.TempDir()
				unvacInto(t, theirs, srv.Addr, out, score)
				unvacInto(t, theirs, srv.Addr, out, score2)
				equalTrees(t, filepath.Join(work, "tree"), filepath.Join(out, "tree"))
				equalTrees(t, filepath.Join(work, "tree2"), filepath.Join(out, "tree2"))
				stop(t, s, srv)
				srv = ours.Serve(t, st)
			}
			srv.Stop(t)
			checkClean(t, ours, st)
			ours.Run(t, nil, "venti/checkarenas", "-a", second)
		})
	}
}
