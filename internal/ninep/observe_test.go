package ninep_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"strata/internal/ninep"
)

// A trusting is a tree that believes who attaches to "open", and has the
// attached user's name as its own.
type trusting struct{ ninep.FS }

func (trusting) Trusts(aname string) bool { return aname == "open" }

func (f trusting) Attach(_ context.Context, user, _ string) (ninep.Node, error) {
	return ninep.NewDir(ninep.Dir{Name: user, UID: user, Mode: 0o555}, nil), nil
}

func TestConnsAndTrace(t *testing.T) {
	var mu sync.Mutex
	var traced []string
	s := ninep.NewServer(trusting{}, ninep.Config{User: (&ninep.Identity{Rules: []ninep.UserRule{}}).User})
	s.SetTrace(func(peer, message string) {
		mu.Lock()
		defer mu.Unlock()
		traced = append(traced, message)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{Dialect: ninep.Classic})
	if err != nil {
		t.Fatal(err)
	}
	for aname, want := range map[string]string{"": "none", "open": "glenda"} {
		root, err := c.Attach(t.Context(), "glenda", aname)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := root.Stat(t.Context()); err != nil || d.UID != want {
			t.Errorf("attached to %q as %s, %v, want %s", aname, d.UID, err, want)
		}
	}
	list := s.Conns()
	if len(list) != 1 {
		t.Fatalf("connections: %+v", list)
	}
	i := list[0]
	if i.Number != 1 || i.Peer != conn.LocalAddr().String() || strings.Join(i.Users, " ") != "glenda none" || i.Fids != 2 || i.Dialect != ninep.Classic || i.Taken != 5 {
		t.Errorf("connection: %+v", i)
	}
	if st := s.Stats(); st.Conns != 1 || st.Accepted != 1 || st.Messages != 5 {
		t.Errorf("statistics: %+v", st)
	}
	s.SetTrace(nil)
	c.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Conns != 0 || st.Messages < 5 {
		t.Errorf("statistics afterwards: %+v", st)
	}
	all := strings.Join(traced, "\n")
	for _, want := range []string{`Tversion tag ~0 msize`, `Rversion tag ~0`, `Tattach tag 0 fid`, `aname "open"`, "Rstat tag", "Rattach"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
}

// TestAdmit turns one client of two away.
func TestAdmit(t *testing.T) {
	errFull := errors.New("full")
	n, gone := 0, make(chan struct{})
	s := ninep.NewServer(trusting{}, ninep.Config{Admit: func(io.ReadWriteCloser) (func(), error) {
		if n++; n > 1 {
			return nil, errFull
		}
		return func() { close(gone) }, nil
	}})
	near, far := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.ServeConn(t.Context(), far) }()
	c, err := ninep.NewClient(t.Context(), near, ninep.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	near2, far2 := net.Pipe()
	if err := s.ServeConn(t.Context(), far2); err != errFull {
		t.Errorf("the second: %v", err)
	}
	if _, err := near2.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the second is read: %v", err)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-gone
}

func TestIdentityKnows(t *testing.T) {
	rule, err := ninep.ParseUserRule("127.0.0.1 glenda")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if id := (&ninep.Identity{}); id.Knows(conn) {
		t.Error("an address that no rule is about is known")
	}
	if id := (&ninep.Identity{Rules: []ninep.UserRule{rule}}); !id.Knows(conn) {
		t.Error("an address that a rule is about is not known")
	}
}
