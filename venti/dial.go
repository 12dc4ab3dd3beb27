package venti

import (
	"context"
	"net"
	"os"

	"strata/internal/netaddr"
)

// DefaultAddr is the server that clients use when $venti is not set.
const DefaultAddr = "tcp!127.0.0.1!17034"

// service names the protocol's port, 17034.
const service = "venti"

// Dial connects to the server at addr, which is written as package netaddr
// says: tcp!host!port, host:port, unix!/path or /path. An empty addr is $venti
// or, where that is not set, DefaultAddr. ctx bounds the connecting only.
func Dial(ctx context.Context, addr string) (*Client, error) {
	if addr == "" {
		addr = os.Getenv("venti")
	}
	if addr == "" {
		addr = DefaultAddr
	}
	nc, err := netaddr.Dial(ctx, addr, service)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, nc)
}

// A ListenConfig says how to announce an address.
type ListenConfig struct {
	// Open allows an address off loopback. There is no authentication: whoever
	// can connect can read and, unless the server is read only, write.
	Open bool
}

// Listen announces addr for Server.Serve; an empty addr is DefaultAddr.
func (lc ListenConfig) Listen(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		addr = DefaultAddr
	}
	return netaddr.Config{Open: lc.Open}.Listen(ctx, addr, service)
}
