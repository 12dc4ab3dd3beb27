package ninep

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A ConnInfo describes a connection of a server.
type ConnInfo struct {
	Number   uint64 // counts up from 1
	Peer     string // an address, or uid=1000 for a process of this machine
	Dialect  Dialect
	Msize    int
	Users    []string // as whom it is attached, sorted
	Fids     int
	Requests int    // being worked on or waiting
	Taken    uint64 // messages
}

// A ServerStats counts what a server does.
type ServerStats struct {
	Conns    int
	Accepted uint64 // connections so far
	Messages uint64 // taken so far

	// Requests that had to wait for others of their connection: for their
	// number, or for their bytes.
	NumberWaits, ByteWaits uint64
}

// observed is what a server knows of its connections.
type observed struct {
	requests, bytes        atomic.Int64 // limits of each connection
	numberWaits, byteWaits atomic.Uint64
	taken                  atomic.Uint64 // by connections that have ended
	trace                  atomic.Pointer[func(peer, message string)]

	mu    sync.Mutex // guards the fields below; conn.mu may be taken under it
	last  uint64
	conns map[*conn]uint64
}

func (o *observed) add(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	o.conns[c] = o.last
}

func (o *observed) remove(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns, c)
	o.taken.Add(c.taken.Load())
}

// Stats returns what the server has counted.
func (s *Server) Stats() ServerStats {
	o := &s.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	st := ServerStats{
		Conns: len(o.conns), Accepted: o.last, Messages: o.taken.Load(),
		NumberWaits: o.numberWaits.Load(), ByteWaits: o.byteWaits.Load(),
	}
	for c := range o.conns {
		st.Messages += c.taken.Load()
	}
	return st
}

// Conns describes the connections, the oldest first. Local clients are not
// among them.
func (s *Server) Conns() []ConnInfo {
	o := &s.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]ConnInfo, 0, len(o.conns))
	for c, n := range o.conns {
		info := c.info()
		info.Number = n
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b ConnInfo) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

func (c *conn) info() ConnInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := ConnInfo{
		Peer: c.peer, Dialect: c.dialect, Msize: int(c.msize),
		Fids: len(c.fids), Requests: len(c.tags), Taken: c.taken.Load(),
	}
	for _, f := range c.fids {
		i.Users = append(i.Users, f.user)
	}
	slices.Sort(i.Users)
	i.Users = slices.Compact(i.Users)
	return i
}

// peerName returns what a connection's other end is called.
func (c *conn) peerName() string {
	if p, err := peerOf(c.rwc); err == nil && p.uid != "" {
		return "uid=" + p.uid
	}
	return remote(c.rwc)
}

// Limits returns how many requests of each connection are worked on at once,
// and how many bytes those and their replies take.
func (s *Server) Limits() (requests, bytes int) {
	return int(s.observed.requests.Load()), int(s.observed.bytes.Load())
}

// SetLimits changes Config.MaxRequests and MaxBytes, unless they are 0.
func (s *Server) SetLimits(requests, bytes int) {
	if requests > 0 {
		s.observed.requests.Store(int64(requests))
	}
	if bytes > 0 {
		s.observed.bytes.Store(int64(bytes))
	}
}

// SetTrace has f told of every message, in its text form, from now on. Nil
// ends that. f is called at once by many, and must not wait.
func (s *Server) SetTrace(f func(peer, message string)) {
	if f == nil {
		s.observed.trace.Store(nil)
		return
	}
	s.observed.trace.Store(&f)
}

// maxTrace is how much of a message's text is told.
const maxTrace = 1000

// traceRequest tells of a request.
func (c *conn) traceRequest(f *Fcall) {
	if t := c.srv.observed.trace.Load(); t != nil {
		(*t)(c.peer, shorten(f.Text(c.dialect)))
	}
}

// traceReply tells of a reply that is packed.
func (c *conn) traceReply(out *buffer) {
	t := c.srv.observed.trace.Load()
	if t == nil {
		return
	}
	var f Fcall
	d := c.dialect
	if Type(out.b[4]) == Rversion {
		d = Classic
	}
	text := fmt.Sprintf("message %d tag %d of %d bytes", out.b[4], binary.LittleEndian.Uint16(out.b[5:]), binary.LittleEndian.Uint32(out.b))
	if len(out.lent) == 0 && f.Unpack(out.b, d) == nil {
		text = f.Text(d)
	}
	(*t)(c.peer, shorten(text))
}

func shorten(text string) string {
	if len(text) > maxTrace {
		text = strings.ToValidUTF8(text[:maxTrace], "") + "..."
	}
	return text
}

// A Truster is an FS some of whose trees take everybody's word for who they
// are, whatever the server knows.
type Truster interface {
	// Trusts tells whether what aname names is such a tree.
	Trusts(aname string) bool
}
