package venti

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"

	"strata/internal/netaddr"
)

// DefaultAddr is the server that clients use when $venti is not set.
const DefaultAddr = "tcp!127.0.0.1!17034"

// service names the protocol's port, 17034.
const service = "venti"

// Dial connects to the server at addr, which is written as package netaddr
// says: tcp!host!port, host:port, unix!/path, /path or, with the files of
// certificates, tls!host!port!ca=FILE!cert=FILE. An empty addr is $venti or,
// where that is not set, DefaultAddr. ctx bounds the connecting only.
func Dial(ctx context.Context, addr string) (*Client, error) {
	nc, err := netaddr.Dial(ctx, serverAddr(addr), service)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, nc)
}

// serverAddr returns addr or, if it is empty, the default.
func serverAddr(addr string) string {
	return cmp.Or(addr, os.Getenv("venti"), DefaultAddr)
}

// A ListenConfig says how to announce an address.
type ListenConfig struct {
	// Open allows an address off loopback that does not ask for certificates:
	// whoever can connect can read and, unless the server says otherwise, write.
	Open bool
	// Logger is told of clients without the right certificate. Nil means quiet.
	Logger *slog.Logger
}

// Listen announces addr for Server.Serve; an empty addr is DefaultAddr.
func (lc ListenConfig) Listen(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		addr = DefaultAddr
	}
	return netaddr.Config{Open: lc.Open, Logger: lc.Logger}.Listen(ctx, addr, service)
}
