package venti_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

// serve runs a server of st for the length of the test and returns its
// address.
func serve(t testing.TB, st venti.Store, cfg venti.ServerConfig) string {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "venti.sock")
	ln, err := venti.ListenConfig{}.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, st, cfg)
	return addr
}

// serveOn runs a server of st on ln for the length of the test.
func serveOn(t testing.TB, ln net.Listener, st venti.Store, cfg venti.ServerConfig) {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- venti.NewServer(st, cfg).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// dial connects to a server for the length of the test.
func dial(t testing.TB, addr string) *venti.Client {
	t.Helper()
	c, err := venti.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pipe connects a client to a server of st in this process.
func pipe(t testing.TB, st venti.Store, cfg venti.ServerConfig) *venti.Client {
	t.Helper()
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		venti.NewServer(st, cfg).ServeConn(ctx, far)
	}()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	c, err := venti.NewClient(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// plain hides every optional ability of a store.
type plain struct{ venti.Store }

func TestStoreOverTheWire(t *testing.T) {
	for _, tc := range []struct {
		name string
		open func(t *testing.T) venti.Store
	}{
		{"unix socket", func(t *testing.T) venti.Store {
			return dial(t, serve(t, ventitest.NewMemory(), venti.ServerConfig{}))
		}},
		{"tcp", func(t *testing.T) venti.Store {
			ln, err := venti.ListenConfig{}.Listen(t.Context(), "tcp!127.0.0.1!0")
			if err != nil {
				t.Fatal(err)
			}
			serveOn(t, ln, ventitest.NewMemory(), venti.ServerConfig{})
			return dial(t, ln.Addr().String())
		}},
		{"pipe", func(t *testing.T) venti.Store {
			return pipe(t, ventitest.NewMemory(), venti.ServerConfig{})
		}},
		{"store without abilities", func(t *testing.T) venti.Store {
			return dial(t, serve(t, plain{ventitest.NewMemory()}, venti.ServerConfig{}))
		}},
		{"little room", func(t *testing.T) venti.Store {
			return dial(t, serve(t, plain{ventitest.NewMemory()}, venti.ServerConfig{MaxBytes: 1}))
		}},
		{"relayed", func(t *testing.T) venti.Store {
			c := dial(t, serve(t, ventitest.NewMemory(), venti.ServerConfig{}))
			return dial(t, serve(t, c, venti.ServerConfig{}))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { ventitest.TestStore(t, tc.open) })
	}
}
