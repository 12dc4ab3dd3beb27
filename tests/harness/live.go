package harness

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"strata/internal/ninep"
)

// Sock returns the path of a socket: venti, fossil, vdisk, nbd or fscons.
func (s *Strata) Sock(service string) string { return filepath.Join(s.Dir, service+".sock") }

// NBD returns the URI of an export.
func (s *Strata) NBD(export string) string {
	return "nbd+unix:///" + export + "?socket=" + s.Sock("nbd")
}

// Vdisk returns the root of what vdisk serves, to a client of its own.
func (s *Strata) Vdisk(t testing.TB) *ninep.File {
	t.Helper()
	conn, err := net.Dial("unix", s.Sock("vdisk"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Open opens a file of what vdisk serves.
func Open(t testing.TB, root *ninep.File, path string, mode ninep.OpenMode) *ninep.File {
	t.Helper()
	f, err := root.Walk(t.Context(), strings.Split(path, "/")...)
	if err == nil {
		err = f.Open(t.Context(), mode)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return f
}

// Relay has a port of loopback lead to a socket, for guests, and returns it.
func Relay(t testing.TB, sock string) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		stop()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { relay(ctx, in, sock) })
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

func relay(ctx context.Context, in net.Conn, sock string) {
	defer in.Close()
	out, err := new(net.Dialer).DialContext(ctx, "unix", sock)
	if err != nil {
		return
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() {
		in.Close()
		out.Close()
	})()
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(out, in)
		out.(*net.UnixConn).CloseWrite()
	})
	io.Copy(in, out)
	in.Close()
	both.Wait()
}
