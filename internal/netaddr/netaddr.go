// Package netaddr reads addresses written Plan 9's way or the Unix way, and
// dials and announces them:
//
//	tcp!host!port    tcp!host    net!host!port
//	host:port        host        [::1]:port
//	unix!/path       /path       the name of an existing file
//
// A port is a number, the name of a service that Plan 9's programs have built
// in, or one of the machine's own. What the address leaves out, the caller's
// default service fills in. The host * means any address and can only be
// announced.
package netaddr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// services are the ports that Plan 9's programs know without asking the
// machine.
var services = map[string]int{
	"9fs":      564,
	"cpu":      17013,
	"exportfs": 17007,
	"venti":    17034,
}

// maxUnixPath is what a Linux socket address holds, less its final NUL.
const maxUnixPath = 107

// Parse returns the network, "tcp" or "unix", and the address that package
// net takes. service is the default port. A host of * becomes an empty host.
// It reads the machine's table of services and asks whether a file exists,
// but looks up no host.
func Parse(addr, service string) (network, address string, err error) {
	network, address, err = parse(addr, service)
	if err != nil {
		return "", "", fmt.Errorf("address %q: %w", addr, err)
	}
	return network, address, nil
}

func parse(addr, service string) (string, string, error) {
	if network, rest, ok := strings.Cut(addr, "!"); ok {
		switch network {
		case "unix":
			return unix(rest)
		case "tcp", "net":
			host, port, ok := strings.Cut(rest, "!")
			if !ok {
				port = service
			}
			return tcp(host, port)
		}
		return "", "", fmt.Errorf("unknown network %q", network)
	}
	if strings.HasPrefix(addr, "/") {
		return unix(addr)
	}
	if _, err := os.Stat(addr); err == nil {
		return unix(addr)
	}
	if !strings.Contains(addr, ":") || isIP(addr) {
		return tcp(addr, service)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		var ae *net.AddrError
		if errors.As(err, &ae) {
			err = errors.New(ae.Err)
		}
		return "", "", err
	}
	return tcp(host, port)
}

func unix(path string) (string, string, error) {
	switch {
	case path == "" || strings.IndexByte(path, 0) >= 0:
		return "", "", errors.New("bad socket name")
	case len(path) > maxUnixPath:
		return "", "", fmt.Errorf("socket name of %d bytes, at most %d fit", len(path), maxUnixPath)
	}
	return "unix", path, nil
}

func tcp(host, service string) (string, string, error) {
	switch {
	case host == "":
		return "", "", errors.New("no host")
	case strings.ContainsAny(host, "!/[] \t\n\x00"), strings.Contains(host, ":") && !isIP(host):
		return "", "", fmt.Errorf("bad host %q", host)
	case host == "*":
		host = ""
	}
	port, err := portOf(service)
	if err != nil {
		return "", "", err
	}
	return "tcp", net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// isIP tells whether host is an address in numbers.
func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// portOf reads a port: a built-in name, a number as C writes it, a name that
// the machine knows.
func portOf(service string) (int, error) {
	if port, ok := services[service]; ok {
		return port, nil
	}
	if port, err := strconv.ParseUint(service, 0, 16); err == nil {
		return int(port), nil
	}
	if service != "" && strings.Trim(service, "0123456789") != "" {
		if port, err := net.LookupPort("tcp", service); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("unknown service %q", service)
}

// Dial connects to addr. TCP connections have TCP_NODELAY set, as package
// net does by default.
func Dial(ctx context.Context, addr, service string) (net.Conn, error) {
	network, address, err := Parse(addr, service)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(address, ":") {
		return nil, fmt.Errorf("address %q: * can only be announced", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// Config says how to announce an address.
type Config struct {
	// Open allows an address that is not the machine's own loopback: whoever
	// reaches it may use the service.
	Open bool
}

// ErrNotLoopback is returned for an address that others can reach and that
// Config does not allow.
var ErrNotLoopback = errors.New("not a loopback address, and the service is open to whoever reaches it")

// Listen announces addr. A Unix socket that a dead server left behind is
// replaced; one that somebody answers at is not. Closing the listener removes
// its socket.
func (c Config) Listen(ctx context.Context, addr, service string) (net.Listener, error) {
	network, address, err := Parse(addr, service)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return listenUnix(ctx, address)
	}
	// The name is looked up once, so that the address that is checked is the
	// one that is announced.
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	if host != "" {
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", addr, err)
		}
		// Like package net, prefer the older protocol.
		ip := ips[0].Unmap()
		for _, other := range ips {
			if other = other.Unmap(); other.Is4() {
				ip = other
				break
			}
		}
		if !ip.IsLoopback() && !c.Open {
			return nil, fmt.Errorf("announce %s: %w", addr, ErrNotLoopback)
		}
		address = net.JoinHostPort(ip.String(), port)
	} else if !c.Open {
		return nil, fmt.Errorf("announce %s: %w", addr, ErrNotLoopback)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

// listenUnix announces a socket. Two servers that find the same dead socket
// at the same moment could both replace it; what keeps two servers off one
// store is the lock on its partitions, not the socket.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ln, err
	}
	st, staterr := os.Lstat(path)
	if staterr != nil {
		return nil, staterr
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("announce %s: a file of that name exists and is not a socket", path)
	}
	var d net.Dialer
	conn, dialerr := d.DialContext(ctx, "unix", path)
	if dialerr == nil {
		conn.Close()
	}
	if !errors.Is(dialerr, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("announce %s: somebody serves there already: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return lc.Listen(ctx, "unix", path)
}
