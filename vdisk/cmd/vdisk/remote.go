package main

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"strings"

	"strata/internal/ninep"
	"strata/vdisk/fsys"
)

// openRemote returns the root directory of the file system in a partition of a
// live image, or of a snapshot of one, as a vdisk serves it. close ends its use.
func openRemote(ctx context.Context, server, name, snap, part string) (_ fsys.File, close func(), err error) {
	c, root, err := dial(ctx, server, ninep.Linux)
	if err != nil {
		return nil, nil, err
	}
	path := append([]string{"images"}, strings.Split(name, "/")...)
	switch strings.Count(snap, "/") {
	case 0:
		if snap != "" {
			path = append(path, "tag", snap)
		}
	default:
		path = append(append(path, "snap"), strings.Split(snap, "/")...)
	}
	f := &remoteFile{ctx: ctx, f: root}
	if err = f.walk(root, append(path, "parts", part, "fs")...); err != nil {
		c.Close()
		return nil, nil, err
	}
	return f, func() { c.Close() }, nil
}

// A remoteFile is a file that a vdisk serves, for the length of a command: what
// is walked to stays so until the connection ends.
type remoteFile struct {
	ctx  context.Context
	f    *ninep.File
	info fsys.FileInfo
	open bool
}

// walk makes f what names lead to from a file.
func (f *remoteFile) walk(from *ninep.File, names ...string) (err error) {
	if f.f, err = from.Walk(f.ctx, names...); err != nil {
		return err
	}
	d, err := f.f.Stat(f.ctx)
	if err != nil {
		return err
	}
	number := func(s string) uint32 {
		n, _ := strconv.ParseUint(s, 10, 32) // who has a name only is nobody here
		return uint32(n)
	}
	f.info = fsys.FileInfo{
		ID: d.Qid.Path, Mode: fs.FileMode(d.Mode.Unix() & 0o777), Size: d.Length, ModTime: d.Mtime, Links: max(d.Links, 1),
		UID: number(d.UID), GID: number(d.GID), Major: d.Device.Major, Minor: d.Device.Minor,
	}
	for bit, mode := range map[ninep.Mode]fs.FileMode{
		ninep.ModeDir: fs.ModeDir, ninep.ModeSymlink: fs.ModeSymlink, ninep.ModePipe: fs.ModeNamedPipe, ninep.ModeSocket: fs.ModeSocket,
		ninep.ModeDevice: fs.ModeDevice, ninep.ModeSetuid: fs.ModeSetuid, ninep.ModeSetgid: fs.ModeSetgid, ninep.ModeSticky: fs.ModeSticky,
	} {
		if d.Mode&bit != 0 {
			f.info.Mode |= mode
		}
	}
	if d.Mode&ninep.ModeDevice != 0 && !d.Device.Block {
		f.info.Mode |= fs.ModeCharDevice
	}
	if d.Mode&ninep.ModeSymlink != 0 {
		f.info.Target, err = f.f.Readlink(f.ctx)
	}
	return err
}

func (f *remoteFile) Info() fsys.FileInfo { return f.info }

// start opens the file.
func (f *remoteFile) start() error {
	if f.open {
		return nil
	}
	err := f.f.Open(f.ctx, ninep.OREAD)
	f.open = err == nil
	return err
}

func (f *remoteFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.start(); err != nil {
		return 0, err
	}
	n, err := f.f.ReadAt(f.ctx, p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *remoteFile) Lookup(name string) (fsys.File, error) {
	c := &remoteFile{ctx: f.ctx}
	if err := c.walk(f.f, name); err != nil {
		return nil, err
	}
	return c, nil
}

func (f *remoteFile) Entries() iter.Seq2[fsys.Entry, error] {
	return func(yield func(fsys.Entry, error) bool) {
		dir, err := f.f.Walk(f.ctx) // one that is open is not walked from
		if err == nil {
			err = dir.Open(f.ctx, ninep.OREAD)
		}
		var list []ninep.Dir
		if err == nil {
			list, err = dir.ReadDir(f.ctx)
		}
		if err != nil {
			yield(fsys.Entry{}, err)
			return
		}
		dir.Close(f.ctx)
		for _, d := range list {
			c := &remoteFile{ctx: f.ctx}
			err := c.walk(f.f, d.Name)
			if !yield(fsys.Entry{Name: d.Name, File: c}, err) {
				return
			}
		}
	}
}
