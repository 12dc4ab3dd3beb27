package ninep_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"strata/internal/ninep"
)

// passFS wants a password before it believes who a user is, and shows in its
// root's name whom it has attached.
type passFS struct {
	mu     sync.Mutex
	closed int
}

func (fs *passFS) Attach(_ context.Context, user, _ string) (ninep.Node, error) {
	return ninep.NewDir(ninep.Dir{Name: user, Qid: ninep.Qid{Path: 1}}, nil), nil
}

func (fs *passFS) Auth(_ context.Context, user, _ string) (ninep.AuthHandle, error) {
	if user == "stranger" {
		return nil, ninep.ErrUnknownUser
	}
	return &passAuth{fs: fs, user: user}, nil
}

type passAuth struct {
	fs   *passFS
	user string
	mu   sync.Mutex
	said string
}

func (a *passAuth) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	return copy(p, "password?"), nil
}

func (a *passAuth) WriteAt(_ context.Context, p []byte, _ int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said += string(p)
	return len(p), nil
}

func (a *passAuth) User() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.said != "swordfish" {
		return "", ninep.ErrAuth
	}
	return a.user, nil
}

func (a *passAuth) Close(context.Context) error {
	a.fs.mu.Lock()
	defer a.fs.mu.Unlock()
	a.fs.closed++
	return nil
}

// TestAuth proves who a user is through an auth fid.
func TestAuth(t *testing.T) {
	fs := &passFS{}
	p := newPeer(t, serve(t, fs, ninep.Config{}))
	p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: "9P2000"})
	attach := func(fid, afid uint32, uname string) ninep.Fcall {
		return p.call(ninep.Fcall{Type: ninep.Tattach, Fid: fid, Afid: afid, Uname: uname})
	}
	fails := func(what string, r ninep.Fcall, want *ninep.Error) {
		t.Helper()
		if r.Ename != want.Text {
			t.Errorf("%s: %s", what, r.Text(ninep.Classic))
		}
	}
	is := func(fid uint32, user string) {
		t.Helper()
		if r := p.must(ninep.Fcall{Type: ninep.Tstat, Fid: fid}); r.Stat.Name != user {
			t.Errorf("attached as %s, want %s", r.Stat.Name, user)
		}
	}
	fails("a stranger", p.call(ninep.Fcall{Type: ninep.Tauth, Afid: 9, Uname: "stranger"}), ninep.ErrUnknownUser)
	if r := p.must(ninep.Fcall{Type: ninep.Tauth, Afid: 9, Uname: "glenda"}); r.Qid.Type != ninep.QTAuth {
		t.Errorf("aqid is %v", r.Qid)
	}
	fails("a fid in use", p.call(ninep.Fcall{Type: ninep.Tauth, Afid: 9, Uname: "glenda"}), ninep.ErrFidInUse)
	fails("too early", attach(1, 9, "glenda"), ninep.ErrAuth)
	if r := p.must(ninep.Fcall{Type: ninep.Tread, Fid: 9, Count: 100}); string(r.Data) != "password?" {
		t.Errorf("read %q", r.Data)
	}
	p.must(ninep.Fcall{Type: ninep.Twrite, Fid: 9, Data: []byte("swordfish")})
	fails("as another", attach(1, 9, "root"), ninep.ErrAuth)
	if r := attach(1, 9, "glenda"); r.Type != ninep.Rattach {
		t.Errorf("attach: %s", r.Text(ninep.Classic))
	}
	is(1, "glenda")
	fails("with no auth fid", attach(2, 1, "glenda"), ninep.ErrAuth)
	fails("with no fid", attach(2, 77, "glenda"), ninep.ErrFid)
	attach(3, ninep.NoFid, "glenda")
	is(3, "none")
	// An auth fid is for nothing else.
	fails("walk", p.call(ninep.Fcall{Type: ninep.Twalk, Fid: 9, Newfid: 10}), ninep.ErrFidOpen)
	fails("stat", p.call(ninep.Fcall{Type: ninep.Tstat, Fid: 9}), ninep.ErrFidUse)
	fails("open", p.call(ninep.Fcall{Type: ninep.Topen, Fid: 9}), ninep.ErrFidUse)
	p.must(ninep.Fcall{Type: ninep.Tclunk, Fid: 9})
	if fs.closed != 1 {
		t.Errorf("the auth file was closed %d times", fs.closed)
	}
}

// userFS shows who attached.
type userFS struct{}

func (userFS) Attach(_ context.Context, user, _ string) (ninep.Node, error) {
	return ninep.NewDir(ninep.Dir{Name: user, Qid: ninep.Qid{Path: 1}}, nil), nil
}

// TestUsers attaches by name and number, and with a server that knows better.
func TestUsers(t *testing.T) {
	users := ninep.NewUsers(map[string]uint32{"glenda": 1000, "also-glenda": 1000, "none": 99, "bob": 7})
	for _, c := range []struct { // of Linux only that it attaches: its getattr has no name
		dialect ninep.Dialect
		uname   string
		uid     uint32
		want    string
	}{
		{ninep.Classic, "glenda", 0, "glenda"},
		{ninep.Classic, "", 0, "none"},
		{ninep.Linux, "bob", ninep.NoUID, "bob"},
		{ninep.Linux, "bob", 1000, "also-glenda"},
		{ninep.Linux, "", 5, "none"},
		{ninep.Unix, "", 7, "bob"},
		{ninep.Unix, "", ninep.NoUID, "none"},
	} {
		p := newPeer(t, serve(t, userFS{}, ninep.Config{Users: users}))
		p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: c.dialect.String()})
		p.dialect = c.dialect
		p.must(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, Uname: c.uname, UID: c.uid})
		if c.dialect == ninep.Linux {
			continue
		}
		if name := p.must(ninep.Fcall{Type: ninep.Tstat, Fid: 1}).Stat.Name; name != c.want {
			t.Errorf("%s %q %d is %s, want %s", c.dialect, c.uname, c.uid, name, c.want)
		}
	}
	for _, c := range []struct {
		users *ninep.Users
		name  string
		id    uint32
		back  string
	}{
		{users, "glenda", 1000, "also-glenda"}, {users, "nobody-we-know", 99, "none"}, {users, "none", 99, "none"},
		{nil, "root", 0, "root"}, {nil, "glenda", 65534, "none"}, {ninep.NewUsers(nil), "x", 65534, "none"},
	} {
		if id := c.users.ID(c.name); id != c.id || c.users.Name(id) != c.back {
			t.Errorf("%s is %d, want %d, which is %s, want %s", c.name, id, c.id, c.users.Name(id), c.back)
		}
	}
	no := errors.New("not on this connection")
	p := newPeer(t, serve(t, userFS{}, ninep.Config{User: func(conn io.ReadWriteCloser, uname string) (string, error) {
		if _, ok := conn.(*net.UnixConn); !ok || uname == "root" {
			return "", no
		}
		return "bob", nil
	}}))
	p.must(ninep.Fcall{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 8192, Version: "9P2000"})
	if r := p.call(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, Uname: "root"}); r.Ename != no.Error() {
		t.Errorf("attach as root: %s", r.Text(ninep.Classic))
	}
	p.must(ninep.Fcall{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, Uname: "glenda"})
	if name := p.must(ninep.Fcall{Type: ninep.Tstat, Fid: 1}).Stat.Name; name != "bob" {
		t.Errorf("attached as %s", name)
	}
}

type contextKey struct{}

// TestContext looks at what a tree gets as its context.
func TestContext(t *testing.T) {
	seen := make(chan context.Context, 1)
	var derived []context.Context
	node := ninep.NewText(ninep.Dir{Name: "f", Qid: ninep.Qid{Path: 2}}, func(ctx context.Context) (string, error) {
		// Derived ones end with it, and leave no goroutine (see TestMain).
		d, cancel := context.WithCancel(ctx)
		t.Cleanup(cancel)
		derived = append(derived, d)
		if ctx.Err() != nil || d.Err() != nil || ctx.Value(contextKey{}) != "value" {
			return "", errors.New("not a context to work with")
		}
		if _, ok := ctx.Deadline(); ok {
			return "", errors.New("a deadline")
		}
		seen <- ctx
		return "text", nil
	})
	near, far := socketPair(t)
	ended := make(chan error, 1)
	parent := context.WithValue(context.Background(), contextKey{}, "value")
	fs := fixedFS{ninep.NewDir(ninep.Dir{Name: "/", Qid: ninep.Qid{Path: 1}}, map[string]ninep.Node{"f": node})}
	go func() { ended <- ninep.NewServer(fs, ninep.Config{}).ServeConn(parent, far) }()
	p := newPeer(t, near)
	p.start(ninep.Classic, 8192)
	p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"f"}})
	p.must(ninep.Fcall{Type: ninep.Topen, Fid: 2})
	ctx := <-seen
	<-ctx.Done() // when the request is over
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("the context of what is over: %v", ctx.Err())
	}
	for _, d := range derived {
		<-d.Done()
	}
	near.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
