package venti

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ServerStats says who uses a server.
type ServerStats struct {
	Conns, MaxConns int   // connections there are, and may be
	Accepted        int64 // connections since the server was made, but for those turned away
	Refused         int64 // turned away: there were too many
	Clients         []ClientInfo
}

// ClientInfo is about one connection whose handshake is done.
type ClientInfo struct {
	Addr     string // of the client
	Version  string // of the protocol
	Since    time.Time
	Requests int64 // received
	InFlight int   // of them not answered yet, but for those that are answered at once
}

// Stats returns who uses the server, the longest connected first.
func (s *Server) Stats() ServerStats {
	st := ServerStats{
		Conns: len(s.conns), MaxConns: cap(s.conns),
		Accepted: s.clients.accepted.Load(), Refused: s.clients.refused.Load(),
	}
	s.clients.mu.Lock()
	for c, since := range s.clients.conns {
		st.Clients = append(st.Clients, ClientInfo{
			Addr: c.nc.RemoteAddr().String(), Version: c.version, Since: since,
			Requests: c.received.Load(), InFlight: len(c.tags),
		})
	}
	s.clients.mu.Unlock()
	slices.SortFunc(st.Clients, func(a, b ClientInfo) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Addr, b.Addr))
	})
	return st
}

// clients are the connections of a server whose handshake is done. The zero
// value has none.
type clients struct {
	accepted, refused atomic.Int64

	mu    sync.Mutex // guards the fields below
	conns map[*serverConn]time.Time
}

func (l *clients) add(c *serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*serverConn]time.Time)
	}
	l.conns[c] = time.Now()
}

func (l *clients) remove(c *serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}
