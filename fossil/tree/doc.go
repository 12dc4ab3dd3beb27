// Package tree serves a Fossil file system over 9P: it decides who may do what,
// and shows files as package ninep wants them.
//
//	t := tree.New(fs, tree.Config{})
//	err := ninep.NewServer(t, ninep.Config{}).Serve(ctx, listener)
//
// The name that a client attaches with says where it begins: "main" is the
// root directory, with active, archive and snapshot in it; "main/active", or no
// name, the tree that can be written; any path below main, or a path that begins
// with a slash, the directory there. A client does not get out of what it has
// attached to.
//
// The rules are those of Plan 9's Fossil (section 10 of the specification). An
// owner's bits do not take away what a group's or the others' give; where there
// is a group called write, nobody else changes anything; members of noworld
// have nothing of what all others have but the way through directories. Beyond
// Plan 9's: the length of a file may be changed by whoever may write it, as
// Linux programs expect; the access time by whoever may change the other; a symbolic link is a file
// with a mode of its own. To clients in a dialect of Unix's, a file that they make has the mode that
// they ask for, not masked with the directory's, and one that they have open goes on when its
// name is removed; to Plan 9's it "has been removed".
//
// The table of users is that of the file UsersFile (see LoadUsers), each file
// system's its own. A directory that is all on Venti has its score as the extended
// attribute user.vac.score.
//
// Qids are those of the file system, but in a snapshot: the same file is in
// many of them, and clients that keep what they have read by its qid must not
// take one for the other. There the path is mixed from the snapshot's and the
// file's own.
package tree
