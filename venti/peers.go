package venti

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// A peer is a client as far as limits go: another machine with all its
// connections (of IPv6 a network of 64 bits, which one machine may have to
// itself), or one connection from this machine.
type peer struct {
	room     *semaphore.Weighted // its share of the bytes of requests; taken before the server's
	requests *bucket             // nil without a limit
	bytes    *bucket

	conns int // guarded by peers.mu
}

// peers are those of a server that are connected. The zero value has none.
type peers struct {
	mu     sync.Mutex // guards the fields below
	remote map[netip.Prefix]*peer
}

func (s *Server) newPeer() *peer {
	return &peer{room: semaphore.NewWeighted(s.share), requests: newBucket(s.requestRate), bytes: newBucket(s.byteRate)}
}

// enter returns the peer of one more connection, or nil if it has too many.
func (s *Server) enter(c *caller) *peer {
	if !c.remote() {
		return s.newPeer()
	}
	key := peerKey(c.ip)
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	p := s.peers.remote[key]
	switch {
	case p == nil:
		if s.peers.remote == nil {
			s.peers.remote = make(map[netip.Prefix]*peer)
		}
		p = s.newPeer()
		s.peers.remote[key] = p
	case p.conns >= s.peerConns:
		return nil
	}
	p.conns++
	return p
}

// leave is enter's counterpart.
func (s *Server) leave(c *caller, p *peer) {
	if !c.remote() {
		return
	}
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	if p.conns--; p.conns == 0 {
		delete(s.peers.remote, peerKey(c.ip))
	}
}

func peerKey(ip netip.Addr) netip.Prefix {
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// A bucket lets something through at a rate on average, and at any rate until
// a second's worth has gone through. Who takes more than there is pays by
// waiting before the next. A nil one lets everything through.
type bucket struct {
	rate float64 // a second; immutable

	mu    sync.Mutex // guards the fields below
	level float64    // what may go through at once; negative while there is debt
	at    time.Time  // when that was so
}

func newBucket(rate int64) *bucket {
	if rate <= 0 {
		return nil
	}
	return &bucket{rate: float64(rate), level: float64(rate), at: time.Now()}
}

// take takes n, and returns for how long to wait because of it.
func (b *bucket) take(n int64) time.Duration {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.level = min(b.rate, b.level+b.rate*now.Sub(b.at).Seconds()) - float64(n)
	b.at = now
	if b.level >= 0 {
		return 0
	}
	return time.Duration(-b.level / b.rate * float64(time.Second))
}
