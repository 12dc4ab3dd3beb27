// Package ninefuse shows a 9P tree through FUSE: what the kernel asks of a
// mounted file system becomes requests of an ninep.Client, as many at a time as
// the kernel has.
//
//	client, err := ninep.NewClient(ctx, conn, ninep.ClientConfig{Dialect: ninep.Linux, Users: ninep.HostUsers()})
//	root, err := client.Attach(ctx, "glenda", "")
//	m, err := ninefuse.Mount("/mnt", client, root, ninefuse.Config{})
//	m.Wait()
//
// A node is a file that the kernel knows, under one number for as long as it
// knows it, with a fid that is never opened; what is opened is a fid of its own.
// Two names of one file are one node: its qid's path says so.
//
// What the kernel may keep of a file is a matter of its qid's version: when the
// version at an open is that of the open before, the pages are kept. Attributes
// and names are believed for a second, but a length no longer than the version
// stays. A file that never had a length, and whose version is 0, may be one that
// is made up as it is read: reads of it go to the server, each as one request. A
// version of 0 says nothing, and pages are kept while the file is open.
//
// In 9P2000 and 9P2000.u there are things that rename(2) and unlink(2) promise
// and the protocol lacks: a file in the way of a rename is removed first, a
// rename to another directory is EXDEV, and a file that is removed while it is
// open gets another name until it is closed (hide.go).
//
// Lock order: FS.mu, then node.mu. Neither is held through a request.
package ninefuse
