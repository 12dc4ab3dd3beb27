package ninep_test

import (
	"context"
	"io"
	"net"
	"testing"

	"strata/internal/ninep"
)

// FuzzConn has a server read anything, behind the start of a session or not.
// It must end, with everything closed.
func FuzzConn(f *testing.F) {
	for i, s := range seeds() {
		f.Add(uint8(i)|4, s.frame)
	}
	var all []byte
	for _, s := range seeds() {
		if s.dialect == ninep.Linux && s.frame[4] != byte(ninep.Tversion) {
			all = append(all, s.frame...)
		}
	}
	f.Add(uint8(ninep.Linux)|4, all)
	f.Fuzz(func(t *testing.T, how uint8, data []byte) {
		d := ninep.Dialect(how & 3 % 3)
		tree := newMemFS()
		near, far := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			ninep.NewServer(tree, ninep.Config{MaxFids: 50, MaxRequests: 5, MaxBytes: 1 << 16}).ServeConn(context.Background(), far)
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			io.Copy(io.Discard, near)
		}()
		if how&4 != 0 {
			for _, m := range []ninep.Fcall{
				{Type: ninep.Tversion, Tag: ninep.NoTag, Msize: 4096, Version: d.String()},
				{Type: ninep.Tattach, Fid: 1, Afid: ninep.NoFid, UID: ninep.NoUID},
			} {
				b, err := m.Pack(nil, d)
				if err != nil {
					t.Fatal(err)
				}
				near.Write(b)
			}
		}
		near.Write(data)
		near.Close()
		<-ended
		<-read
		if n := tree.Open(); n != 0 {
			t.Fatalf("%d handles are open", n)
		}
	})
}

// FuzzClient has a client read anything in place of replies.
func FuzzClient(f *testing.F) {
	for _, s := range seeds() {
		f.Add(uint8(s.dialect), s.frame)
	}
	f.Fuzz(func(t *testing.T, dialect uint8, data []byte) {
		d := ninep.Dialect(dialect % 3)
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			io.ReadAtLeast(far, make([]byte, 100), 19)
			b, _ := (&ninep.Fcall{Type: ninep.Rversion, Tag: ninep.NoTag, Msize: 4096, Version: d.String()}).Pack(nil, d)
			far.Write(b)
			far.Read(make([]byte, 100))
			far.Write(data)
		}()
		c, err := ninep.NewClient(t.Context(), near, ninep.ClientConfig{Dialect: d})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		root, err := c.Attach(t.Context(), "glenda", "")
		if err != nil {
			return
		}
		root.Open(t.Context(), ninep.OREAD)
		root.ReadDir(t.Context())
		root.ReadAt(t.Context(), make([]byte, 10000), 0)
		root.WriteAt(t.Context(), make([]byte, 10000), 0)
		for range root.Stream(t.Context(), 0) {
		}
		root.Stat(t.Context())
	})
}
