package ninep_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newMemFS returns an empty tree whose clock stands still.
func newMemFS() *ninetest.MemFS {
	fs := ninetest.NewMemFS(func() time.Time { return time.Unix(1e9, 5) })
	return fs
}

// serve serves fs at the other end of the connection that it returns, until
// the test ends, when everything must have been clunked.
func serve(t testing.TB, fs ninep.FS, cfg ninep.Config) net.Conn {
	t.Helper()
	return serveWith(t, ninep.NewServer(fs, cfg))
}

func serveWith(t testing.TB, s *ninep.Server) net.Conn {
	t.Helper()
	near, far := socketPair(t)
	ended := make(chan error, 1)
	go func() { ended <- s.ServeConn(context.Background(), far) }()
	t.Cleanup(func() {
		near.Close()
		if err := <-ended; err != nil {
			t.Errorf("ServeConn: %v", err)
		}
	})
	return near
}

// socketPair returns the ends of a unix connection.
func socketPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// TestConversations replays testdata/talk against a tree in memory.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/talk/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			fs := newMemFS()
			conn := serve(t, fs, ninep.Config{Users: ninep.NewUsers(map[string]uint32{"adm": 0, "glenda": 1000, "sys": 3})})
			t.Cleanup(func() {
				// Runs before serve's: hang up, and see that all was closed.
				conn.Close()
			})
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			ninetest.Replay(t, conn, file)
		})
	}
}
