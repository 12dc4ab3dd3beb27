package suite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/tests/harness"
	"strata/venti"
)

// filled makes a store with an arena that is sealed and summed and an open
// one, and returns it with the blocks that are in it.
func filled(t *testing.T, extra ...string) (*harness.Store, map[venti.Score][]byte) {
	t.Helper()
	ours := harness.Ours(t)
	st := ours.Format(t, 1<<20, 3, extra...)
	srv := ours.Serve(t, st)
	blocks := fill(t, srv.Addr, 1, 1500<<10)
	waitForSeal(t, st)
	srv.Stop(t)
	return st, blocks
}

// waitForSeal returns when the first arena of a store that is served has its
// seal.
func waitForSeal(t *testing.T, st *harness.Store) {
	t.Helper()
	for range 600 {
		_, stderr, _ := harness.Ours(t).Try(t, nil, "venti/verifyarena", "-v", st.Arenas(), "arena0")
		if strings.Contains(stderr, "arena0: verified score") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("arena0 is not sealed")
}

// fill writes some bytes of blocks, half of which compress, and syncs.
func fill(t *testing.T, addr string, seed uint64, bytes int) map[venti.Score][]byte {
	t.Helper()
	c, err := venti.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rng := rand.New(rand.NewPCG(seed, 0))
	blocks := make(map[venti.Score][]byte)
	for bytes > 0 {
		b := make([]byte, 1+rng.IntN(16<<10))
		for i := range b {
			if b[i] = byte(rng.Uint32()); len(blocks)%2 == 0 {
				b[i] &= 3
			}
		}
		score, err := c.WriteBlock(t.Context(), venti.DataType, b)
		if err != nil {
			t.Fatal(err)
		}
		blocks[score] = b
		bytes -= len(b)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return blocks
}

// readBack checks that a server has all blocks.
func readBack(t *testing.T, addr string, blocks map[venti.Score][]byte) {
	t.Helper()
	c, err := venti.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	for score, want := range blocks {
		n, err := c.ReadBlock(t.Context(), score, venti.DataType, buf)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("%v: %d bytes, %v, want %d", score, n, err, len(want))
		}
	}
}

// fails runs a program that must end with a status, and returns what it says.
func fails(t *testing.T, status int, name string, args ...string) string {
	t.Helper()
	out, stderr, err := harness.Ours(t).Try(t, nil, name, args...)
	if ee, ok := err.(*exec.ExitError); !ok || ee.ExitCode() != status {
		t.Errorf("%s %q: %v, want status %d", name, args, err, status)
	}
	return out + stderr
}

func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(text) {
			t.Errorf("%s printed %q, which %q does not match", what, text, w)
		}
	}
}

func overwrite(t *testing.T, file string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// Where the first arenas of a store are.
const (
	arena0 = 794624
	arena1 = arena0 + 1<<20
	block  = 8192
)

// TestArenaTools looks at a store, also while it is served, with the tools
// that read arenas.
func TestArenaTools(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t)
	var any venti.Score
	for any = range blocks {
		break
	}
	clumps := fmt.Sprint(len(blocks))
	check := func(t *testing.T) {
		contains(t, "printarenapart", ours.Run(t, nil, "venti/printarenapart", st.Arenas()),
			`^# arena part version=3 blocksize=8192 arenabase=794624\narena arena0 794624 clumps=\d+ .* sealed\n\tctime=.*\n\tmtime=.*\narena arena1 1843200 `)
		contains(t, "printarena", ours.Run(t, nil, "venti/printarena", "-o", "794624", st.Arenas()),
			`^# arena head version=5 name=arena0 blocksize=8192 size=1048576 clumpmagic=0x[0-9a-f]{8}\n {21}0 [0-9a-f]{40}   0 +\d+\n`, `\nend offset \d+\n$`)
		list := ours.Run(t, nil, "venti/printarenas", st.Conf())
		if got := strings.Count(list, "\n"); got != len(blocks) {
			t.Errorf("printarenas lists %d clumps, want %d", got, len(blocks))
		}
		contains(t, "printarenas", list, `(?m)^ {15}1048576 [0-9a-f]{40}   0 +\d+$`, any.String())
		contains(t, "clumpstats", ours.Run(t, nil, "venti/clumpstats", st.Conf()), "^clumps = "+clumps+"\n", `(?m)^\d+(\t\d+){18}$`)
		contains(t, "findscore", ours.Run(t, nil, "venti/findscore", st.Arenas(), any.String()), "^found 1 occurrences of "+any.String()+"\n$")
		_, stderr, err := ours.Try(t, nil, "venti/findscore", "-v", st.Arenas(), any.String())
		contains(t, "findscore -v", stderr, "reading directory for arena=arena0", fmt.Sprintf(`found at clump=\d+ with type=0 size=%d csize=\d+ position=\d+`, len(blocks[any])))
		if err != nil {
			t.Error(err)
		}
		contains(t, "printmap", ours.Run(t, nil, "venti/printmap", st.Conf()),
			`^index=main version=1 blocksize=8192 tabsize=524288\n\tbuckets=\d+ div=\d+\n\tsect=isect for buckets \[0,\d+\)\n\tarena=arena0 at \[1048576,2080768\)\n`)
	}
	check(t)
	sorted := func(s string) string {
		lines := strings.Split(s, "\n")
		m := make(map[string]bool)
		for _, l := range lines {
			m[l] = true
		}
		return fmt.Sprint(m)
	}
	if a, b := ours.Run(t, nil, "venti/printindex", st.Conf()), ours.Run(t, nil, "venti/printarenas", st.Conf()); sorted(a) != sorted(b) {
		t.Error("printindex and printarenas do not list the same")
	}
	fails(t, 1, "venti/printindex", st.Conf(), "nosuch")
	fails(t, 1, "venti/printarenas", st.Conf(), "nosuch")
	fails(t, 1, "venti/printarena", st.Arenas())
	fails(t, 2, "venti/findscore", st.Arenas(), "xyz")

	// While it is served too.
	srv := ours.Serve(t, st)
	check(t)
	_, stderr, err := ours.Try(t, nil, "venti/verifyarena", "-v", st.Arenas())
	contains(t, "verifyarena", stderr, "arena0: verified score", `arena1: unsealed [\d,]+ bytes`)
	if err != nil {
		t.Error(err)
	}
	contains(t, "reseal of a partition in use", fails(t, 1, "venti/reseal", st.Arenas()), "in use")
	dump := ours.Run(t, nil, "venti/rdarena", "-q", st.Arenas(), "arena0")
	srv.Stop(t)
	all, err := os.ReadFile(st.Arenas())
	if err != nil {
		t.Fatal(err)
	}
	if dump != string(all[arena0:arena1]) {
		t.Error("rdarena does not print the arena")
	}
	if out, stderr, err := ours.Try(t, []byte(dump), "venti/verifyarena"); err != nil {
		t.Errorf("verifyarena of a dump: %v, %s%s", err, out, stderr)
	}

	// The seal tells of one byte.
	overwrite(t, st.Arenas(), arena0+block+1000, []byte{all[arena0+block+1000] ^ 1})
	contains(t, "verifyarena", fails(t, 1, "venti/verifyarena", st.Arenas()), "arena0: mismatch checksum - found=[0-9a-f]{40} calculated=[0-9a-f]{40}")
	contains(t, "reseal", fails(t, 1, "venti/reseal", st.Arenas(), "arena0"), "failed to verify before reseal")
	ours.Run(t, nil, "venti/reseal", "-f", st.Arenas(), "arena0")
	ours.Run(t, nil, "venti/verifyarena", st.Arenas())
	fails(t, 1, "venti/checkarenas", "-a", st.Arenas())
}

// TestWrarena brings arenas from one server to another, whole and by and by.
func TestWrarena(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t)
	to := ours.Serve(t, ours.Format(t, 4<<20, 1, "compression none"))
	dump := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(dump, []byte(ours.Run(t, nil, "venti/rdarena", "-q", st.Arenas(), "arena0")), 0o600); err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "venti/wrarena", "-h", to.Addr, dump)
	out := ours.Run(t, nil, "venti/wrarena", "-h", to.Addr, "-o", fmt.Sprint(arena1), st.Arenas())
	contains(t, "wrarena -o", out, `^end offset 0x[0-9a-f]+\n$`)
	readBack(t, to.Addr, blocks)

	// What comes later is written from there on.
	srv := ours.Serve(t, st)
	more := fill(t, srv.Addr, 2, 100<<10)
	srv.Stop(t)
	end := strings.TrimSpace(strings.TrimPrefix(out, "end offset "))
	ours.Run(t, nil, "venti/wrarena", "-h", to.Addr, "-o", fmt.Sprint(arena1), st.Arenas(), end)
	readBack(t, to.Addr, more)
	fails(t, 1, "venti/wrarena", "-h", to.Addr, "-o", fmt.Sprint(arena1), st.Arenas(), "0x123")
	fails(t, 2, "venti/wrarena", "-h", to.Addr, st.Arenas(), end)

	// All of a partition, and an arena from a pipe.
	second := ours.Serve(t, ours.Format(t, 4<<20, 1))
	ours.Run(t, nil, "venti/wrarena", "-h", second.Addr, st.Arenas())
	readBack(t, second.Addr, blocks)
	third := ours.Serve(t, ours.Format(t, 4<<20, 1))
	b, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	ours.Run(t, b, "venti/wrarena", "-h", third.Addr, "-")

	// A damaged clump is named, and the others are written.
	b[block+60] ^= 1
	if err := os.WriteFile(dump, b, 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, "wrarena", fails(t, 1, "venti/wrarena", "-h", third.Addr, dump), "arena arena0: clump 0 at 0: ", "1 damaged clumps")
	fails(t, 1, "venti/wrarena", "-h", "unix!"+filepath.Join(t.TempDir(), "none"), dump)
}

// TestZstd brings a store that Plan 9's programs cannot read into one that
// they can.
func TestZstd(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t, "compression zstd")
	ours.Run(t, nil, "venti/checkarenas", "-a", st.Arenas())
	ours.Run(t, nil, "venti/verifyarena", st.Arenas())
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd} // of zstd's frames
	b, err := os.ReadFile(st.Arenas())
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, magic); n < len(blocks)/10 {
		t.Errorf("of %d blocks %d are compressed", len(blocks), n)
	}
	to := ours.Format(t, 4<<20, 1)
	srv := ours.Serve(t, to)
	ours.Run(t, nil, "venti/wrarena", "-h", srv.Addr, st.Arenas())
	readBack(t, srv.Addr, blocks)
	srv.Stop(t)
	if b, err = os.ReadFile(to.Arenas()); err != nil || bytes.Contains(b, magic) {
		t.Errorf("the copy has zstd's clumps, %v", err)
	}
	copied := ours.Format(t, 1<<20, 3)
	ours.Run(t, nil, "venti/mirrorarenas", st.Arenas(), copied.Arenas())
	ours.Run(t, nil, "venti/cmparenas", st.Arenas(), copied.Arenas())
}

// TestMirrorarenas keeps a copy of a store that is served, and serves the
// copy.
func TestMirrorarenas(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t)
	copied := ours.Format(t, 1<<20, 3)
	mirror := func() string { return ours.Run(t, nil, "venti/mirrorarenas", "-v", st.Arenas(), copied.Arenas()) }
	contains(t, "mirrorarenas", mirror(), `arena0 \(794,624-1,843,200\)\n`, `  copy 802,816-[\d,]+ data\n`, "arena0-arena0 mirrored sealed", `arena1: [\d,]+ used mirrored`, "arena2-arena2 empty")
	if out := mirror(); strings.Contains(out, "copy") {
		t.Errorf("a second time it copies: %s", out)
	}
	srv := ours.Serve(t, st)
	for s, b := range fill(t, srv.Addr, 3, 200<<10) {
		blocks[s] = b
	}
	contains(t, "mirrorarenas of a store that is served", mirror(), "arena0-arena0 mirrored sealed")
	srv.Stop(t)
	mirror()
	ours.Run(t, nil, "venti/cmparenas", st.Arenas(), copied.Arenas())
	ours.Run(t, nil, "venti/verifyarena", copied.Arenas())
	ours.Run(t, nil, "venti/checkarenas", "-a", copied.Arenas())
	ours.Run(t, nil, "venti/buildindex", copied.Conf())
	readBack(t, ours.Serve(t, copied).Addr, blocks)

	other := ours.Format(t, 2<<20, 1)
	contains(t, "mirrorarenas of other arenas", fails(t, 1, "venti/mirrorarenas", st.Arenas(), other.Arenas()), "partitions differ")
	fails(t, 2, "venti/mirrorarenas", st.Arenas(), other.Arenas(), "3-x")
	overwrite(t, st.Arenas(), arena0+block+5, []byte{0xff, 0xff})
	contains(t, "cmparenas", fails(t, 1, "venti/cmparenas", st.Arenas(), other.Arenas()), "arena0: sizes are")
}

// TestFixarenas destroys the trailer of a sealed arena, the table and a
// header; a server finds all blocks again, and the arena gets the seal that it
// had.
func TestFixarenas(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t)
	before, err := os.ReadFile(st.Arenas())
	if err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "venti/fixarenas", st.Arenas())
	overwrite(t, st.Arenas(), arena1-block, make([]byte, block))
	overwrite(t, st.Arenas(), 256<<10, make([]byte, 1024))
	overwrite(t, st.Arenas(), arena1, make([]byte, 100))
	if _, stderr, err := ours.Try(t, nil, "venti/venti", "-c", st.Conf(), "-a", "unix!"+st.Dir+"/sock"); err == nil {
		t.Error("a server starts on a damaged partition")
	} else {
		contains(t, "venti", stderr, "arena partition")
	}
	contains(t, "fixarenas", fails(t, 1, "venti/fixarenas", "-a", "1m", st.Arenas()), "partition: ", "arena0: ", "3 faults")
	ours.Run(t, nil, "venti/fixarenas", "-f", "-a", "1m", st.Arenas())
	srv := ours.Serve(t, st)
	readBack(t, srv.Addr, blocks)
	waitForSeal(t, st)
	srv.Stop(t)
	ours.Run(t, nil, "venti/checkarenas", "-a", st.Arenas())
	ours.Run(t, nil, "venti/checkindex", st.Conf())
	after, err := os.ReadFile(st.Arenas())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(after[256<<10:arena1], before[256<<10:arena1]) {
		t.Error("the sealed arena is not what it was")
	}
}

// TestBuildindex makes an index anew, in place of one that is damaged, in
// larger sections, and with little memory; and stops in the midst.
func TestBuildindex(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t)
	isect := filepath.Join(st.Dir, "isect")
	before := ours.Run(t, nil, "venti/printindex", st.Conf())

	overwrite(t, isect, 1<<20, bytes.Repeat([]byte("junk"), 1<<18))
	fails(t, 1, "venti/checkindex", st.Conf())
	ours.Run(t, nil, "venti/buildindex", "-M", "64k", st.Conf())
	if after := ours.Run(t, nil, "venti/printindex", st.Conf()); after != before {
		t.Error("the index differs")
	}
	ours.Run(t, nil, "venti/checkindex", st.Conf())

	// Half of an index is none.
	overwrite(t, isect, 256<<10+72, make([]byte, 64))
	_, stderr, err := ours.Try(t, nil, "venti/venti", "-c", st.Conf(), "-a", "unix!"+st.Dir+"/sock")
	contains(t, "venti", stderr, "section isect: building the index was interrupted: run buildindex again")
	if err == nil {
		t.Error("a server starts without an index")
	}
	ours.Run(t, nil, "venti/buildindex", st.Conf())
	ours.Run(t, nil, "venti/checkindex", st.Conf())

	// A larger one.
	if err := os.Remove(isect); err != nil {
		t.Fatal(err)
	}
	if err := disk.Create(isect, 20<<20); err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "venti/fmtisect", "isect", isect)
	_, stderr, err = ours.Try(t, nil, "venti/fmtindex", st.Conf())
	contains(t, "fmtindex", stderr, "warning: the arenas have [0-9,]+ clumps, which the index lacks: run venti/buildindex")
	if err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "venti/buildindex", st.Conf())
	srv := ours.Serve(t, st)
	readBack(t, srv.Addr, blocks)
	contains(t, "buildindex beside a server", fails(t, 1, "venti/buildindex", st.Conf()), "in use")
	srv.Stop(t)
	fails(t, 1, "venti/buildindex", "-i", "nosuch", st.Conf())
	ours.Run(t, nil, "venti/buildindex", "-i", "isect", "-b", st.Conf())
	ours.Run(t, nil, "venti/buildindex", "-i", "", st.Conf())
	ours.Run(t, nil, "venti/checkindex", st.Conf())

	// One that is too small: what has no room is found again at each start.
	if err := os.Remove(isect); err != nil {
		t.Fatal(err)
	}
	if err := disk.Create(isect, 794624+2*512); err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "venti/fmtisect", "-b", "512", "isect", isect)
	ours.Run(t, nil, "venti/fmtindex", st.Conf())
	contains(t, "buildindex", fails(t, 1, "venti/buildindex", st.Conf()), `\d+ entries have no room in their buckets`)
	srv = ours.Serve(t, st)
	readBack(t, srv.Addr, blocks)
	srv.Stop(t)
}

// TestSyncindex puts into the index what a kill has left out.
func TestSyncindex(t *testing.T) {
	ours := harness.Ours(t)
	st := ours.Format(t, 1<<20, 3)
	srv := ours.Serve(t, st)
	blocks := fill(t, srv.Addr, 1, 300<<10)
	srv.Kill()
	_, stderr, err := ours.Try(t, nil, "venti/syncindex", "-v", st.Conf())
	contains(t, "syncindex", stderr, fmt.Sprintf("%d entries put into the index", len(blocks)))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(ours.Run(t, nil, "venti/printindex", st.Conf()), "\n"); got != len(blocks) {
		t.Errorf("the index has %d entries, want %d", got, len(blocks))
	}
}

// TestConf stores a configuration in a partition, and serves it.
func TestConf(t *testing.T) {
	ours := harness.Ours(t)
	st, blocks := filled(t)
	contains(t, "conf", fails(t, 1, "venti/conf", st.Arenas()), "no configuration in this partition")
	text, err := os.ReadFile(st.Conf())
	if err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "venti/conf", "-w", st.Arenas(), st.Conf())
	if got := ours.Run(t, nil, "venti/conf", st.Arenas()); got != string(text) {
		t.Errorf("%q came back, want %q", got, text)
	}
	contains(t, "conf -w", fails(t, 1, "venti/conf", "-w", st.Arenas(), os.DevNull), "no index line")
	if out, _, err := ours.Try(t, []byte("index x\nbogus 1\n"), "venti/conf", "-w", st.Arenas()); err == nil {
		t.Errorf("a bad configuration is stored: %s", out)
	}
	if out, _, err := ours.Try(t, append([]byte("index x\n#"), make([]byte, 9000)...), "venti/conf", "-w", st.Arenas()); err == nil {
		t.Errorf("a configuration that is too long is stored: %s", out)
	}
	if got := ours.Run(t, nil, "venti/readifile", st.Arenas()); got != string(text) {
		t.Errorf("readifile prints %q, want %q", got, text)
	}
	if err := os.Rename(st.Conf(), st.Conf()+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(st.Arenas(), st.Conf()); err != nil {
		t.Fatal(err)
	}
	srv := ours.Serve(t, st)
	readBack(t, srv.Addr, blocks)
	ours.Run(t, nil, "venti/printmap", st.Arenas())
	srv.Stop(t)
}
