package venti_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"strata/venti"
	"strata/venti/ventitest"
)

func TestRedialer(t *testing.T) {
	st := ventitest.NewMemory()
	s, err := st.WriteBlock(t.Context(), venti.DataType, []byte("block"))
	if err != nil {
		t.Fatal(err)
	}
	addr := filepath.Join(t.TempDir(), "s")
	serve := func() (stop func()) {
		ln, err := venti.ListenConfig{}.Listen(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { venti.NewServer(st, venti.ServerConfig{}).Serve(ctx, ln) })
		return func() { cancel(); wg.Wait() }
	}
	if _, err := venti.Redial(t.Context(), addr); err == nil {
		t.Fatal("connected to nobody")
	}
	stop := serve()
	r, err := venti.Redial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := func() (string, error) {
		buf := make([]byte, 10)
		n, err := r.ReadBlock(t.Context(), s, venti.DataType, buf)
		return string(buf[:n]), err
	}
	for range 3 {
		if got, err := read(); got != "block" {
			t.Fatalf("read %q, %v", got, err)
		}
		stop()
		if got, err := read(); err == nil {
			t.Fatalf("read %q from nobody", got)
		}
		stop = serve()
		// Many at once make one connection, and all are answered.
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := read(); got != "block" {
					t.Errorf("read %q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if _, err := r.ReadBlock(t.Context(), venti.Score{1}, venti.DataType, nil); !errors.Is(err, venti.ErrNotFound) {
			t.Errorf("a block that is not there: %v", err)
		}
	}
	stop()
}
