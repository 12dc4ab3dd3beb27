package interop

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"strata/tests/harness"
)

// servers are those of both makes, on new stores.
func servers(t *testing.T) map[string]*harness.Server {
	list := make(map[string]*harness.Server)
	for _, s := range []harness.Suite{harness.Ours(t), harness.Plan9(t)} {
		list[s.Name] = s.Serve(t, s.Format(t, 8<<20, 6))
	}
	return list
}

// pointerTypes are what their dump calls data+1 and so on.
var pointerTypes = strings.NewReplacer("data+-7", "data+1", "data+-6", "data+2", "data+-5", "data+3")

// TestClientsPrintTheSame runs the clients that look at blocks, ours and
// theirs.
func TestClientsPrintTheSame(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/root")
	work := t.TempDir()
	makeTree(t, filepath.Join(work, "tree"))
	for name, srv := range servers(t) {
		score := strings.TrimPrefix(vacIn(t, theirs, srv.Addr, work, "tree"), "vac:")
		for _, args := range [][]string{
			{"venti/root", "-h", srv.Addr, score},
			{"venti/dump", "-h", srv.Addr, score},
			{"venti/read", "-h", srv.Addr, score},
			{"venti/read", "-h", srv.Addr, "-t", "16", score},
		} {
			got, gotErr, err := ours.Try(t, nil, args[0], args[1:]...)
			want, wantErr, werr := theirs.Try(t, nil, args[0], args[1:]...)
			want = pointerTypes.Replace(want)
			if err != nil || werr != nil {
				t.Errorf("%s of %s: %v, %v\n%s%s", args, name, err, werr, gotErr, wantErr)
			}
			if len(want) == 0 || got != want || gotErr != wantErr {
				t.Errorf("%s of %s: ours prints\n%.400q %q\ntheirs\n%.400q %q", args, name, got, gotErr, want, wantErr)
			}
		}
		for _, s := range []harness.Suite{ours, theirs} {
			_, stderr, err := s.Try(t, nil, "venti/read", "-h", srv.Addr, "-t", "0", score)
			if err == nil {
				t.Errorf("%s reads %s as a data block", s.Name, score)
			}
			// Theirs hangs up before it prints why.
			if s.Name == "strata" && !strings.Contains(stderr, "no block with score "+score+"/0 exists") {
				t.Errorf("a root read as data: %q", stderr)
			}
		}
	}
}

// TestRandtestCrosses has blocks written by one and read by the other.
func TestRandtestCrosses(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/randtest")
	for name, srv := range servers(t) {
		for i, p := range []struct{ writer, reader harness.Suite }{{ours, theirs}, {theirs, ours}} {
			for _, args := range [][]string{
				{"-n", "2m"}, {"-n", "3000000", "-b", "1000", "-p", "100", "-m", "16"}, {"-n", "4m", "-b", "56k", "-P", "-M", "20"}, {"-n", "64k", "-b", "512", "-p", "0"},
			} {
				args = append(args, "-h", srv.Addr, "-s", fmt.Sprint(i+1))
				out := p.writer.Run(t, nil, "venti/randtest", append(args, "-w")...) + p.reader.Run(t, nil, "venti/randtest", append(args, "-r")...)
				if !regexp.MustCompile(`^write: (\d+) bytes / \d+\.\d{3} seconds = \d+\.\d{6} MB/s\nread: (\d+) bytes / \d+\.\d{3} seconds = \d+\.\d{6} MB/s\n$`).MatchString(out) {
					t.Errorf("%s writes and %s reads %s at %s: %q", p.writer.Name, p.reader.Name, args, name, out)
				}
			}
		}
	}
}

// TestListsCross gives both makes of readlist the list of all clumps.
func TestListsCross(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/readlist")
	for _, s := range []harness.Suite{ours, theirs} {
		st, scores := written(t, s, 7)
		srv := s.Serve(t, st)
		ours.Run(t, nil, "venti/randtest", "-h", srv.Addr, "-n", "1100k", "-b", "512", "-w")
		ours.Run(t, nil, "venti/sync", "-h", srv.Addr)
		stop(t, s, srv)
		ours.Run(t, nil, "venti/syncindex", st.Conf())
		var list strings.Builder
		for line := range strings.Lines(ours.Run(t, nil, "venti/printarenas", st.Conf())) {
			f := strings.Fields(line)
			fmt.Fprintln(&list, f[1], f[2])
		}
		if n := strings.Count(list.String(), "\n"); n != len(scores)+2200 {
			t.Fatalf("%d clumps are listed, want %d", n, len(scores)+2200)
		}
		srv = s.Serve(t, st)
		got := ours.Run(t, []byte(list.String()), "venti/readlist", "-h", srv.Addr)
		want := theirs.Run(t, []byte(list.String()), "venti/readlist", "-h", srv.Addr)
		if got != want || got != "1000...2000..." {
			t.Errorf("ours prints %q, theirs %q", got, want)
		}
	}
}

// TestRootsAndFilesCross stores roots and files with one, and reads them with
// the other.
func TestRootsAndFilesCross(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/root", "venti/mkroot", "venti/readfile", "venti/writefile")
	zero, empty := strings.Repeat("0", 40), "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	for name, srv := range servers(t) {
		for _, p := range []struct{ writer, reader harness.Suite }{{ours, theirs}, {theirs, ours}} {
			args := []string{"a name", "it's", empty, "8192", zero}
			score := strings.TrimSpace(p.writer.Run(t, nil, "venti/mkroot", append([]string{"-h", srv.Addr}, args...)...))
			if got, want := p.reader.Run(t, nil, "venti/root", "-h", srv.Addr, score), score+": 'a name' 'it''s' "+empty+" 8192 "+zero+"\n"; got != want {
				t.Errorf("%s: root says %q, want %q", name, got, want)
			}
			for _, size := range []int{0, 1, 8191, 8192, 8193, 409*8192 + 5, 4 << 20} {
				data := random(uint64(size), size)
				clear(data[size/2 : size/2+size/5])
				score := strings.TrimSpace(p.writer.Run(t, data, "venti/writefile", "-h", srv.Addr))
				if got := p.reader.Run(t, nil, "venti/readfile", "-h", srv.Addr, score); !bytes.Equal([]byte(got), data) {
					t.Errorf("%s: of a file of %d bytes by %s, %s reads %d, or others", name, size, p.writer.Name, p.reader.Name, len(got))
				}
			}
		}
	}
}

// TestReadOnlyProxiesCross reads through each make's venti/ro from the
// other's server, and is refused to write.
func TestReadOnlyProxiesCross(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	need(t, theirs, "venti/ro")
	work := t.TempDir()
	makeTree(t, filepath.Join(work, "tree"))
	for name, srv := range servers(t) {
		score := vacIn(t, theirs, srv.Addr, work, "tree")
		for _, s := range []harness.Suite{ours, theirs} {
			ro := s.ServeReadOnly(t, srv)
			out := t.TempDir()
			unvacInto(t, theirs, ro.Addr, out, score)
			equalTrees(t, filepath.Join(work, "tree"), filepath.Join(out, "tree"))
			_, stderr, err := ours.Try(t, []byte("new"), "venti/write", "-h", ro.Addr)
			if err == nil || stderr != "venti/write: read-only server\n" {
				t.Errorf("%s in front of %s: a write: %v, %q", s.Name, name, err, stderr)
			}
			for _, client := range []harness.Suite{ours, theirs} {
				client.Run(t, nil, "venti/sync", "-h", ro.Addr)
			}
		}
	}
}
