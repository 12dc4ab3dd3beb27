package venti_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestServerStats(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := venti.NewServer(ventitest.NewMemory(), venti.ServerConfig{MaxConns: 1})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()

	c, err := venti.Dial(ctx, "unix!"+ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := venti.Dial(ctx, "unix!"+ln.Addr().String()); err == nil {
		t.Error("a second client can connect")
	}
	st := srv.Stats()
	if st.Conns != 1 || st.MaxConns != 1 || st.Accepted != 1 || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
	if len(st.Clients) != 1 || st.Clients[0].Version != "04" || st.Clients[0].Requests != 3 || st.Clients[0].Since.IsZero() {
		t.Errorf("clients are %+v", st.Clients)
	}
	c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if st := srv.Stats(); st.Conns != 0 || st.Accepted != 1 || len(st.Clients) != 0 {
		t.Errorf("after all left: %+v", st)
	}
}
