package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"

	"golang.org/x/sys/unix"

	"strata/internal/command"
	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
)

// mount shows the tree at dir until it is unmounted, or ctx ends. It prints dir
// when it is mounted.
func mount(ctx context.Context, srv *ninep.Server, dir string, w io.Writer) error {
	client := srv.Local(ninep.ClientConfig{Dialect: ninep.Linux})
	defer client.Close()
	name := ninep.NoUser
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	root, err := client.Attach(ctx, name, "")
	if err != nil {
		return err
	}
	// An archive does not change.
	m, err := ninefuse.Mount(dir, client, root, ninefuse.Config{ReadOnly: true, Cache: ninefuse.CacheLoose, Source: "vacfs"})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, dir)
	defer context.AfterFunc(ctx, func() { m.Unmount() })()
	m.Wait()
	return nil
}

// A pair is the two standard streams as one connection.
type pair struct {
	io.Reader
	io.Writer
}

func (p pair) Close() error {
	var errs []error
	for _, s := range []any{p.Reader, p.Writer} {
		if c, ok := s.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// standard returns the standard streams. A read of them ends when they are
// closed.
func standard(std command.IO) io.ReadWriteCloser {
	p := pair{std.Stdin, std.Stdout}
	if f, ok := p.Reader.(*os.File); ok && unix.SetNonblock(int(f.Fd()), true) == nil {
		p.Reader = os.NewFile(f.Fd(), f.Name())
	}
	return p
}
