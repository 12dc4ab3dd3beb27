package ninep

import (
	"context"
	"iter"
	"time"
)

// An FS is what a Server serves. One FS may be served by several servers and
// over many connections at once.
//
// The contract of a tree is FS, Node and Handle, which every tree has, and the
// abilities below them, which a tree's values have or have not: the server
// finds each by type assertion and answers for those that are missing. Every
// method may be called at once with every other. Every context is cancelled
// when the client gives the request up or the connection ends; a method that
// can wait returns soon after that, with an error, or finishes if it is past
// the point of no return. The names that methods are given are one element:
// not empty, not "." or "..", without '/' and NUL.
type FS interface {
	// Attach returns the root of the tree that aname names, as user may see it.
	// An empty aname is the tree that people want. The nodes that are walked to
	// from this root act for user: permissions are the tree's affair. FromUnix
	// says what kind of client it is.
	Attach(ctx context.Context, user, aname string) (Node, error)
}

// A Node is a file or directory, open or not, on behalf of one user. It goes
// on to stand for the same file when that is renamed, and is dropped without
// a call when no fid uses it.
type Node interface {
	// Qid returns the node's qid. Path and Type never change while the file
	// exists, and Path is not used again afterwards; Vers changes with every
	// change of contents. It does not wait.
	Qid() Qid

	// Walk returns the child of a directory. The server calls it for
	// directories only. ErrNotExist says that there is no such child.
	Walk(ctx context.Context, name string) (Node, error)

	// Stat describes the file.
	Stat(ctx context.Context) (Dir, error)

	// Open prepares for reading and writing as mode says. What the handle can do
	// is what its type has of Reader, Writer and DirReader. Of directories the
	// server asks only OREAD.
	Open(ctx context.Context, mode OpenMode) (Handle, error)
}

// OpenMode says what a file is opened for: one of OREAD to OEXEC, and flags.
// Remove-on-close is not here: the server does it, with Remover.
type OpenMode uint16

// The values of an OpenMode.
const (
	OREAD   OpenMode = 0
	OWRITE  OpenMode = 1
	ORDWR   OpenMode = 2
	OEXEC   OpenMode = 3 // read, but the permission checked is execute
	OTRUNC  OpenMode = 0x10
	OAPPEND OpenMode = 0x4000 // writes go to the end of the file, whatever their offset

	orclose OpenMode = 0x40 // of the wire
)

// Reads tells whether the mode allows reading.
func (m OpenMode) Reads() bool { return m&3 != OWRITE }

// Writes tells whether the mode allows writing.
func (m OpenMode) Writes() bool { return m&3 == OWRITE || m&3 == ORDWR }

// A Handle is an open file. The rest of what it can do are the interfaces
// that follow.
type Handle interface {
	// Close ends the use of the handle. It is called once, when no other call is
	// under way, with a context that is not cancelled. Its error reaches the
	// client only as a reply to Tclunk.
	Close(ctx context.Context) error
}

// A Reader is a handle, or what a File is made of, that can be read.
type Reader interface {
	// ReadAt reads up to len(p) bytes at off, which is not negative. Fewer than
	// len(p) mean nothing, none mean the end of the file, as does io.EOF; an
	// error with n > 0 is left for the next read to meet. p is the caller's
	// again when ReadAt has returned.
	ReadAt(ctx context.Context, p []byte, off int64) (n int, err error)
}

// A CachedReader is a Reader that can answer at once from memory.
type CachedReader interface {
	// ReadCached is ReadAt if that needs no waiting; if it does, ok is false and
	// nothing is done. The server calls it in the goroutine that reads the
	// connection.
	ReadCached(p []byte, off int64) (n int, ok bool)
}

// A Lender is a Reader that can lend its memory, for large reads that are
// then sent without being copied.
type Lender interface {
	// Lend appends to bufs up to n bytes at off, none at the end of the file, in
	// as many pieces as it likes, if that needs no waiting; if it does, ok is
	// false and nothing is done. The pieces do not change until done, which may
	// be nil, is called. The server calls both while others wait for it.
	Lend(bufs [][]byte, n int, off int64) (lent [][]byte, done func(), ok bool)
}

// A Writer is a handle that can be written.
type Writer interface {
	// WriteAt writes p at off, which is not negative, and returns how much of it.
	// p is only read, and only until WriteAt returns.
	WriteAt(ctx context.Context, p []byte, off int64) (n int, err error)
}

// A DirReader is an open directory's handle.
type DirReader interface {
	// ReadDir yields the directory's entries behind the one with this Cookie,
	// in the order of their cookies; 0 is before the first. "." and ".." are not
	// among them. An error ends it.
	ReadDir(ctx context.Context, cookie uint64) iter.Seq2[Dir, error]
}

// A Syncer is a handle or node whose changes can be made durable. Without it
// they are taken to be so already.
type Syncer interface {
	// Sync returns nil only when all that was written to the file before is on
	// stable storage.
	Sync(ctx context.Context) error
}

// A Creator is a directory that files and directories can be made in.
// Without it, creation fails with ErrReadOnly.
type Creator interface {
	// Create makes name, which must not exist (ErrExist), and opens it as mode
	// says, whatever its permissions. perm has ModeDir for a directory, may have
	// ModeAppend, ModeExcl, ModeTmp and the set-id bits, and has none of
	// ModeSpecial; as in open(5) the tree masks it with the directory's, though
	// clients from Unix would rather have it as it is (FromUnix). The new
	// file's group is the directory's.
	Create(ctx context.Context, name string, perm Mode, mode OpenMode) (Node, Handle, error)
}

// A Remover is a node that can be removed. Without it, removal fails with
// ErrReadOnly.
type Remover interface {
	// Remove takes the file out of its directory. A directory that is not empty
	// stays, with ErrNotEmpty.
	Remove(ctx context.Context) error
}

// A Wstater is a node whose description can be changed. Without it, that
// fails with ErrReadOnly.
type Wstater interface {
	// Wstat changes all that c says or nothing.
	Wstat(ctx context.Context, c Change) error
}

// A Change says what Wstat changes: what is not nil.
type Change struct {
	Name   *string // within the directory; it must not exist (ErrExist)
	Mode   *Mode   // all of it; the kind of file is as it was
	Length *int64  // growth is zeros
	UID    *string
	GID    *string
	Atime  *time.Time
	Mtime  *time.Time
}

func (c *Change) empty() bool { return *c == Change{} }

// A Parenter is a directory in a tree that moves directories about: it knows
// where it is now. Of others the server remembers how it came to them.
type Parenter interface {
	// Parent returns the directory above. The server does not call it for a
	// root that was attached to.
	Parent(ctx context.Context) (Node, error)
}

// A Renamer is a directory that Linux's rename(2) works in. Without it,
// renaming within the directory is done with Wstat, and otherwise fails with
// ErrCrossDevice.
type Renamer interface {
	// Rename moves oldname to newname in newdir, a node of the same tree, in the
	// place of what may have been there: a file for a file, or an empty directory
	// for a directory.
	Rename(ctx context.Context, oldname string, newdir Node, newname string) error
}

// A Linker is a directory that can give a file a second name.
type Linker interface {
	// Link makes name another name of target, a node of the same tree that is no
	// directory.
	Link(ctx context.Context, target Node, name string) error
}

// A Symlinker is a directory that can hold symbolic links.
type Symlinker interface {
	// Symlink makes a link; Stat gives its target back.
	Symlink(ctx context.Context, name, target string) (Node, error)
}

// A Mknoder is a directory that can hold devices, pipes and sockets.
type Mknoder interface {
	// Mknod makes a file whose perm has one of ModeDevice, ModePipe and
	// ModeSocket.
	Mknod(ctx context.Context, name string, perm Mode, dev Device) (Node, error)
}

// An Xattrer is a node with extended attributes.
type Xattrer interface {
	// Xattrs lists the names of the attributes.
	Xattrs(ctx context.Context) ([]string, error)
	// Xattr returns the value of one; ErrNoXattr says that it has none.
	Xattr(ctx context.Context, name string) ([]byte, error)
	// SetXattr sets one. The flags are those of setxattr(2).
	SetXattr(ctx context.Context, name string, value []byte, flags int) error
	// RemoveXattr removes one.
	RemoveXattr(ctx context.Context, name string) error
}

// A StatFSer is an FS that can tell how full it is.
type StatFSer interface {
	// StatFS describes the file system that node is in.
	StatFS(ctx context.Context, node Node) (StatFS, error)
}

// A StatFS says how full a file system is, as statfs(2) does.
type StatFS struct {
	Type      uint32 // of file system; 0 is V9FS_MAGIC
	BlockSize uint32
	Blocks    uint64
	Free      uint64
	Available uint64
	Files     uint64
	FilesFree uint64
	FSID      uint64
	NameLen   uint32 // longest name in bytes
}

// An Authenticator is an FS that does not take a user's word for who they
// are: those who attach without having authenticated are NoUser.
type Authenticator interface {
	// Auth starts a conversation in which the client, by reading and writing it,
	// proves to be user.
	Auth(ctx context.Context, user, aname string) (AuthHandle, error)
}

// An AuthHandle is an authentication under way: a Handle that is also a
// Reader and a Writer.
type AuthHandle interface {
	Handle
	Reader
	Writer

	// User returns whom the client has proved to be.
	User() (string, error)
}
