package vacfs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"syscall"
	"time"

	"strata/internal/ninep"
	"strata/vac"
	"strata/vac/meta"
	"strata/venti"
)

// A node is a file of an archive, as one user sees it.
type node struct {
	fs   *FS
	file *vac.File
	id   venti.Score // of the archive; below its top, the digest of the directory's and the name
	name string
	user string
}

// child returns the node of a file in the directory n.
func (n *node) child(file *vac.File) *node {
	b := make([]byte, 0, 256)
	b = append(b, n.id[:]...)
	b = append(b, file.Name...)
	return &node{n.fs, file, venti.ScoreOf(b), file.Name, n.user}
}

// Qid has a version that is never 0, so that clients may keep what they read.
func (n *node) Qid() ninep.Qid {
	return ninep.Qid{
		Path: binary.BigEndian.Uint64(n.id[:]),
		Vers: cmp.Or(n.file.Mcount, 1),
		Type: modeOf(n.file.Mode).QidType(),
	}
}

func (n *node) Walk(ctx context.Context, name string) (ninep.Node, error) {
	if !n.may(permExec) {
		return nil, ninep.ErrPermission
	}
	file, err := n.fs.walk(ctx, n.file, n.id, name)
	if err != nil {
		return nil, readError(err)
	}
	return n.child(file), nil
}

// The bits of permission, of one class.
const (
	permExec = 1
	permRead = 4
)

// may tells whether the user has a permission: as one of all, as the owner or,
// since there are no other groups, as the user with the group's name.
func (n *node) may(perm meta.Mode) bool {
	m := n.file.Mode
	return n.fs.cfg.NoPermissions || m&perm != 0 ||
		n.user == n.file.UID && m&(perm<<6) != 0 || n.user == n.file.GID && m&(perm<<3) != 0
}

// modeBits are the bits of a mode that 9P has, too.
var modeBits = []struct {
	vac  meta.Mode
	mode ninep.Mode
}{
	{meta.ModeDir, ninep.ModeDir}, {meta.ModeAppend, ninep.ModeAppend}, {meta.ModeExclusive, ninep.ModeExcl},
	{meta.ModeTemporary, ninep.ModeTmp}, {meta.ModeLink, ninep.ModeSymlink}, {meta.ModeDevice, ninep.ModeDevice},
	{meta.ModePipe, ninep.ModePipe}, {meta.ModeSetuid, ninep.ModeSetuid}, {meta.ModeSetgid, ninep.ModeSetgid},
	{meta.ModeSticky, ninep.ModeSticky},
}

func modeOf(v meta.Mode) ninep.Mode {
	m := ninep.Mode(v & meta.ModePerm)
	if v.IsDir() {
		v &^= meta.ModeLink | meta.ModeDevice | meta.ModePipe // of an archive that was made to confuse
	}
	for _, b := range modeBits {
		if v&b.vac != 0 {
			m |= b.mode
		}
	}
	return m
}

// lostTarget stands for what plan9port's vac has lost of the target of a link.
const lostTarget = "...(the rest was not archived)"

func (n *node) Stat(ctx context.Context) (ninep.Dir, error) {
	f := n.file
	at := func(t uint32) time.Time { return time.Unix(int64(t), 0) }
	d := ninep.Dir{
		Qid: n.Qid(), Mode: modeOf(f.Mode), Name: n.name, Length: f.Size(), UID: f.UID, GID: f.GID, Muid: f.MID,
		Mtime: at(f.Mtime), Atime: at(f.Atime), Ctime: at(f.Ctime),
	}
	// That a target or a number cannot be read should not hide the file.
	switch {
	case d.Mode&ninep.ModeSymlink != 0:
		target, err := f.Link(ctx)
		if errors.Is(err, vac.ErrDamagedLink) {
			target += lostTarget
		}
		d.Target, d.Length = target, int64(len(target))
	case d.Mode&ninep.ModePipe != 0:
		d.Length = 0
	case d.Mode&ninep.ModeDevice != 0:
		d.Length = 0
		if dev, err := f.Device(ctx); err == nil {
			d.Device = ninep.Device{Block: dev.Block, Major: dev.Major, Minor: dev.Minor}
		}
	}
	return d, ctx.Err()
}

// What opening a file says that has no contents of its own.
var (
	errDevice = &ninep.Error{Text: "device", Errno: syscall.ENXIO}
	errPipe   = &ninep.Error{Text: "named pipe", Errno: syscall.ENXIO}
)

func (n *node) Open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	perm := meta.Mode(permRead)
	switch mode &^ ninep.OAPPEND {
	case ninep.OREAD:
	case ninep.OEXEC:
		perm = permExec
	default:
		return nil, ninep.ErrReadOnly
	}
	if !n.may(perm) {
		return nil, ninep.ErrPermission
	}
	switch m := modeOf(n.file.Mode); {
	case m.Dir():
		return &dirHandle{n: n}, nil
	case m&ninep.ModeSymlink != 0:
		// For clients that know no links, and read them.
		d, err := n.Stat(ctx)
		if err != nil {
			return nil, err
		}
		return ninep.NewText(d, func(context.Context) (string, error) { return d.Target, nil }).Open(ctx, ninep.OREAD)
	case m&ninep.ModeDevice != 0:
		return nil, errDevice
	case m&ninep.ModePipe != 0:
		return nil, errPipe
	}
	return &fileHandle{fs: n.fs, file: n.file}, nil
}
