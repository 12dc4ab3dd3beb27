package ventitest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"strata/venti"
)

// Serve serves st until the test has ended and returns the address, a Unix
// socket.
func Serve(t testing.TB, st venti.Store) string {
	t.Helper()
	// The names of t.TempDir can be too long for a socket.
	dir, err := os.MkdirTemp("", "venti")
	if err != nil {
		t.Fatal(err)
	}
	addr := filepath.Join(dir, "venti.sock")
	ln, err := venti.ListenConfig{}.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	return addr
}
