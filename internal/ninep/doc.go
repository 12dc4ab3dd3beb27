// Package ninep is 9P, both ends of it: a server that speaks Plan 9's
// 9P2000, 9P2000.u and Linux's 9P2000.L over one tree, and a client.
//
// A tree implements FS, Node and Handle, and of the abilities beside them in
// tree.go what it has; it knows nothing of fids, tags and dialects. Trees that
// are only read can be put together from NewDir, LookupDir, NewFile and
// NewText:
//
//	root := ninep.NewDir(ninep.Dir{Name: "/", Mode: 0555}, map[string]ninep.Node{
//		"disk": ninep.NewFile(ninep.Dir{Name: "disk", Mode: 0444, Length: size, Qid: ninep.Qid{Path: 1}}, disk),
//	})
//	s := ninep.NewServer(fs, ninep.Config{})
//	err := s.Serve(ctx, listener)
//
// The message formats are tables in fcall.go, the errors that both kinds of
// client understand a table in error.go. conn.go has the connection: one
// goroutine reads it, and watch.go ends it when it is of no more use; handle.go,
// classic.go and linux.go do what the messages ask. text.go has messages as
// text, in which package ninetest holds conversations.
//
// A Client (client.go) has Files (file.go, special.go, stream.go) and one link:
// a connection (link.go) or, within a process, the server itself (local.go).
//
// What the server keeps to, beyond the manual's section 5:
//
//   - A Tversion is answered when every request before it is over and every
//     fid clunked; so is the end of a connection.
//   - A Tflush cancels the context of what it flushes. Its reply comes after
//     the old one or, if that would be an error, instead of it.
//   - A message that cannot be understood gets an error reply; a frame that is
//     too long ends the connection.
//   - Of a connection, no more than Config allows is in memory. What is too much
//     waits, and can still be flushed.
//   - A client that does not take its replies is cut off; one that is silent is
//     asked by TCP whether it is there.
//
// Lock order of the server: openFile.mu, fid.mu, conn.mu, then
// requestContext.mu. Only openFile.mu is held while a tree works, and it orders
// the reads of one directory. Of the client: File.finding, Client.mu, then link.wmu
// or link.mu. finding is held while the server is asked, by all who need the
// answer, and wmu while a request is written.
package ninep
