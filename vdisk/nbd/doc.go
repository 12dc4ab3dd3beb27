// Package nbd serves disks over the Network Block Device protocol, for QEMU,
// the Linux kernel and the tools of libnbd.
//
// The caller has disks, and names for them:
//
//	srv := nbd.NewServer(exports, nbd.Config{})
//	ln, err := netaddr.Config{Upgrade: true}.Listen(ctx, "unix!nbd.sock", nbd.Service)
//	err = srv.Serve(ctx, ln)
//
// where Exports opens a Disk by name, once for each connection. What else than
// reading a disk can do, it shows by the methods that it has: see Disk.
//
// The protocol is the one that doc/proto.md of the nbd project describes,
// fixed newstyle only, with structured replies, block status of the context
// base:allocation, and TLS by NBD_OPT_STARTTLS. Not spoken are the two that
// the document calls experimental: extended headers and resizing under way.
// A disk that has another size than before shows it to the next connection.
//
// A connection has one goroutine that reads requests, and some that carry
// them out; so requests overtake one another, as the protocol allows. What a
// disk has in memory (CachedReader) is answered by the goroutine that reads, and
// so are short requests of a client that sends one at a time.
// Whoever has a reply puts it into the connection's outbox, and whoever finds
// nobody writing writes all there is. Long reads and writes are done piece by
// piece.
//
// A client costs bounded memory: its requests in flight, its bytes, and those
// of all connections together have limits, and who reaches one is not read
// from until there is room. Who is silent in the middle of a message, or does
// not take replies, is cut off; who is silent between requests is not, unless
// Config says so, since guests sleep.
//
// Locks: Server.mu, conn.mu and outbox.mu are never held together, nor while a
// disk is called, but for ReadCached, which does not block.
package nbd
