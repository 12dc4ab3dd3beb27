package suite

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/internal/ninep"
	"strata/tests/harness"
)

// TestServeFromMemory has a vdisk serve what it has read when its Venti server
// has gone.
func TestServeFromMemory(t *testing.T) {
	ours := harness.Ours(t)
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	stop := strataUp(t, ours, store)
	defer func() { stop() }()
	t.Setenv("venti", "unix!"+filepath.Join(store, "venti.sock"))
	disk := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(disk)
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, disk, 0o644); err != nil {
		t.Fatal(err)
	}
	score := strings.TrimSpace(ours.Run(t, nil, "vdisk", "import", raw))
	sock := filepath.Join(dir, "vdisk.sock")
	if _, said, err := ours.Try(t, nil, "vdisk", "serve", "-a", "unix!"+sock, "-M", "1k"); err == nil || !strings.Contains(said, "usage") {
		t.Errorf("with no memory: %v, %s", err, said)
	}
	serve := ours.Command(t.Context(), "vdisk", "serve", "-a", "unix!"+sock, "--memory", "3m")
	said, err := serve.StdoutPipe()
	if err == nil {
		err = serve.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer serve.Wait()
	defer serve.Process.Signal(os.Interrupt)
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		t.Fatalf("vdisk serve says %q, %v", line, err)
	}
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := root.Walk(t.Context(), "score", score, "disk")
	if err == nil {
		err = f.Open(t.Context(), ninep.OREAD)
	}
	if err != nil {
		t.Fatal(err)
	}
	read := func(off, n int) error {
		b := make([]byte, n)
		_, err := f.ReadAt(t.Context(), b, int64(off))
		if err == nil && !bytes.Equal(b, disk[off:off+n]) {
			t.Errorf("other bytes at %d", off)
		}
		return err
	}
	const half = 2 << 20
	if err := read(0, half); err != nil {
		t.Fatal(err)
	}
	stop()
	stop = func() {}
	if err := read(0, half); err != nil {
		t.Errorf("what was read before: %v", err)
	}
	if err := read(half, half); err == nil {
		t.Error("what was not read before is there without a Venti server")
	}
}
