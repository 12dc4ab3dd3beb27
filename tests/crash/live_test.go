package crash

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/tests/harness"
)

// A strata is strata up in a process of its own.
type strata struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	root *ninep.File // of vdisk
	c    *ninep.Client
}

func startStrata(t *testing.T, ours harness.Suite, dir string) *strata {
	t.Helper()
	s := &strata{t: t, dir: dir, cmd: ours.Command(t.Context(), "strata", "up", "--local", "--size", "1", "--buffer", "1", dir)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	s.cmd.Stderr = &said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			s.kill()
			t.Fatalf("strata up said nothing of its console: %s", &said)
		}
		if strings.HasPrefix(lines.Text(), "fscons") { // the last address
			break
		}
	}
	go io.Copy(io.Discard, out) // ends with the process
	conn, err := net.Dial("unix", filepath.Join(dir, "vdisk.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if s.c, err = ninep.NewClient(t.Context(), conn, ninep.ClientConfig{}); err != nil {
		t.Fatal(err)
	}
	if s.root, err = s.c.Attach(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	return s
}

// kill ends the process, now.
func (s *strata) kill() {
	if s.c != nil {
		s.c.Close()
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

func (s *strata) try(path string, mode ninep.OpenMode) (*ninep.File, error) {
	f, err := s.root.Walk(s.t.Context(), strings.Split(path, "/")...)
	if err != nil {
		return nil, err
	}
	return f, f.Open(s.t.Context(), mode)
}

func (s *strata) open(path string, mode ninep.OpenMode) *ninep.File {
	s.t.Helper()
	f, err := s.try(path, mode)
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	return f
}

// tell fails, too, once the process was killed.
func (s *strata) tell(line string) error {
	f, err := s.try("ctl", ninep.ORDWR)
	if err != nil {
		return err
	}
	defer f.Close(s.t.Context())
	_, err = f.WriteAt(s.t.Context(), []byte(line), 0)
	return err
}

// TestKillLiveDisk kills strata up while a live disk is written to, flushed and
// kept: what a flush had acknowledged is there, and so is every snapshot.
func TestKillLiveDisk(t *testing.T) {
	ours := harness.Ours(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := filepath.Join(t.TempDir(), "store")
	const sector, sectors = 4096, 2048
	// What each sector may hold: what was written to it since the last flush, or
	// what it had then. A sector is its number and a count, over and over.
	may := make([][]uint32, sectors)
	for i := range may {
		may[i] = []uint32{0}
	}
	fill := func(i int, n uint32) []byte {
		if n == 0 {
			return make([]byte, sector)
		}
		return bytes.Repeat([]byte(fmt.Sprintf("%07d %07d ", i, n)), sector/16)
	}
	kept := map[string][]uint32{} // by tag, of a disk that was flushed before
	count, flushes := uint32(0), 0
	rounds := max(3, kills(t)/10)
	for round := range rounds {
		s := startStrata(t, ours, dir)
		if round == 0 {
			if err := s.tell(fmt.Sprintf("create a/b %d", sector*sectors)); err != nil {
				t.Fatal(err)
			}
		}
		d := s.open("images/a/b/disk", ninep.ORDWR)
		buf := make([]byte, sector*sectors)
		if _, err := d.ReadAt(t.Context(), buf, 0); err != nil {
			t.Fatal(err)
		}
		for i := range may {
			got, found := buf[i*sector:][:sector], uint32(0)
			ok := false
			for _, n := range may[i] {
				if bytes.Equal(got, fill(i, n)) {
					ok, found = true, n
				}
			}
			if !ok {
				t.Fatalf("round %d: sector %d is %.32q, want one of %v", round, i, got, may[i])
			}
			may[i] = []uint32{found}
		}
		for tag, want := range kept {
			f := s.open("images/a/b/tag/"+tag+"/disk", ninep.OREAD)
			if _, err := f.ReadAt(t.Context(), buf, 0); err != nil {
				t.Fatal(err)
			}
			f.Close(t.Context())
			for i, n := range want {
				if !bytes.Equal(buf[i*sector:][:sector], fill(i, n)) {
					t.Fatalf("round %d: sector %d of the snapshot %s is another", round, i, tag)
				}
			}
		}
		timer := time.AfterFunc(time.Duration(rng.IntN(400))*time.Millisecond, func() { s.cmd.Process.Kill() })
		tag := fmt.Sprintf("round%d", round)
		for step := 0; ; step++ {
			i := rng.IntN(sectors)
			count++
			may[i] = append(may[i], count)
			if _, err := d.WriteAt(t.Context(), fill(i, count), int64(i*sector)); err != nil {
				break
			}
			if rng.IntN(20) > 0 {
				continue
			}
			if d.Sync(t.Context()) != nil {
				break
			}
			flushes++
			now := make([]uint32, sectors)
			for i := range may {
				now[i] = may[i][len(may[i])-1]
				may[i] = may[i][len(may[i])-1:]
			}
			if step > 30 && kept[tag] == nil {
				if s.tell("snap a/b "+tag) != nil {
					break
				}
				kept[tag] = now
			}
		}
		timer.Stop()
		s.kill()
	}
	if flushes == 0 {
		t.Fatal("no flush was ever acknowledged: the test showed nothing")
	}
	t.Logf("%d kills, %d flushes and %d snapshots acknowledged", rounds, flushes, len(kept))
}
