// Package mount holds tests that mount 9P servers as hosts do, with Linux's
// own client in guests under QEMU, and with 9pfuse on this machine, and have
// both do what programs do to file systems.
package mount

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/tests/mount/workload"
)

// scale returns how much the tests do: 1, or what STRATA_TRIAL says times 3.
func scale(t testing.TB) int {
	s := os.Getenv("STRATA_TRIAL")
	if s == "" {
		return 1
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("STRATA_TRIAL=%s: want a number", s)
	}
	return 3 * n
}

// programs builds the commands that the tests run, static, once, and returns
// their folder.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mount-bin")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "strata/tests/mount/guest", "strata/tools/9pfuse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, text)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// program returns the path of one of them.
func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// serve serves fs on a network's address until the test ends. When it does all
// clients are gone, and must have left nothing open.
func serve(t testing.TB, fs *ninetest.MemFS, network, addr string) net.Addr {
	t.Helper()
	t.Cleanup(func() { // after the server's end
		if n := fs.Open(); n != 0 {
			t.Errorf("%d files are still open", n)
		}
	})
	return serveTree(t, fs, ninep.Config{}, network, addr)
}

// serveTree serves a tree on a network's address until the test ends.
func serveTree(t testing.TB, fs ninep.FS, cfg ninep.Config, network, addr string) net.Addr {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ninep.NewServer(fs, cfg).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr()
}

// bigDirectory is where addBig puts a large directory.
const bigDirectory = "big"

// addBig makes a directory of many files, which are a user's.
func addBig(t testing.TB, fs ninep.FS, user string) {
	t.Helper()
	ctx := t.Context()
	root, err := fs.Attach(ctx, user, "")
	if err != nil {
		t.Fatal(err)
	}
	create := func(dir ninep.Node, name string, mode ninep.Mode) ninep.Node {
		n, h, err := dir.(ninep.Creator).Create(ctx, name, mode, ninep.OREAD)
		if err == nil {
			err = h.Close(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	dir := create(root, bigDirectory, ninep.ModeDir|0o777)
	for i := range workload.BigEntries {
		create(dir, workload.BigName(i), 0o666)
	}
}

// results makes a test of each result. A name is the path of its test.
func results(t *testing.T, list []workload.Result) {
	for _, r := range list {
		t.Run(r.Name, func(t *testing.T) {
			t.Logf("%.1f s", r.Seconds)
			if r.Error != "" {
				t.Error(r.Error)
			}
		})
	}
}

// decode reads a result from a line.
func decode(line string) (workload.Result, error) {
	var r workload.Result
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return r, fmt.Errorf("%q: %w", line, err)
	}
	return r, nil
}

// deadline returns when a test that takes so long on an idle machine has hung.
func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d*time.Duration(scale(t)))
	t.Cleanup(cancel)
	return ctx
}
