// Package netaddr reads addresses written Plan 9's way or the Unix way, and
// dials and announces them:
//
//	tcp!host!port    tcp!host    net!host!port
//	host:port        host        [::1]:port
//	tls!host!port!ca=/etc/strata/ca.pem
//	unix!/path       /path       the name of an existing file
//
// A port is a number, the name of a service that Plan 9's programs have built
// in, or one of the machine's own. What the address leaves out, the caller's
// default service fills in. The host * means any address and can only be
// announced.
//
// Attributes follow the address of a tls or unix network, each after an
// exclamation mark, so that the address alone says everything that either end
// needs. Files are in PEM.
//
//	tls!host!port   dialled:
//	    ca=FILE     who may have signed the server's certificate (default: the machine's authorities)
//	    cert=FILE   our certificate, with those between it and the server's ca
//	    key=FILE    its key (default: in cert)
//	    name=HOST   the name in the server's certificate (default: host)
//	tls!host!port   announced:
//	    cert=FILE   key=FILE   as above
//	    ca=FILE     who must have signed the client's certificate; without it none is asked for
//	unix!/path      announced:
//	    mode=0660   who may connect (default: 0600, the owner)
//	    group=NAME  the group of the socket, a name or number
//
// TLS is version 1.3. An address that other machines reach is announced only
// with a ca for clients, or with Config.Open. The listener's connections have
// their handshake behind them: a client that says nothing, or has the wrong
// certificate, reaches nobody. When a file of a certificate is replaced, the
// next handshake uses the new one.
package netaddr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// An Addr is an address that has been read.
type Addr struct {
	Network string // "tcp", "tls" or "unix"
	Address string // what package net takes: host:port, or a path; a host of * is empty

	text  string            // as it was written
	attrs map[string]string // each has a value
}

// Parse reads an address. service is the default port. It reads the machine's
// table of services and asks whether a file exists, but looks up no host and
// opens no file.
func Parse(addr, service string) (Addr, error) {
	a, err := parse(addr, service)
	if err != nil {
		return Addr{}, fmt.Errorf("address %q: %w", addr, err)
	}
	a.text = addr
	return a, nil
}

func parse(addr, service string) (Addr, error) {
	if network, rest, ok := strings.Cut(addr, "!"); ok {
		switch network {
		case "unix":
			path, attrs, err := cutAttrs(rest, "mode", "group")
			if err != nil {
				return Addr{}, err
			}
			a, err := unixAddr(path)
			a.attrs = attrs
			return a, err
		case "tcp", "net", "tls":
			var attrs map[string]string
			if network == "tls" {
				var err error
				if rest, attrs, err = cutAttrs(rest, "ca", "cert", "key", "name"); err != nil {
					return Addr{}, err
				}
			}
			host, port, ok := strings.Cut(rest, "!")
			if !ok {
				port = service
			}
			a, err := tcpAddr(host, port)
			if network == "tls" && err == nil {
				a.Network, a.attrs = "tls", attrs
			}
			return a, err
		}
		return Addr{}, fmt.Errorf("unknown network %q", network)
	}
	if strings.HasPrefix(addr, "/") {
		return unixAddr(addr)
	}
	if _, err := os.Stat(addr); err == nil {
		return unixAddr(addr)
	}
	if !strings.Contains(addr, ":") || isIP(addr) {
		return tcpAddr(addr, service)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		var ae *net.AddrError
		if errors.As(err, &ae) {
			err = errors.New(ae.Err)
		}
		return Addr{}, err
	}
	return tcpAddr(host, port)
}

// cutAttrs takes the attributes off the end of s.
func cutAttrs(s string, known ...string) (rest string, attrs map[string]string, err error) {
	for {
		i := strings.LastIndexByte(s, '!')
		key, value, ok := strings.Cut(s[i+1:], "=")
		if i < 0 || !ok || strings.ContainsAny(key, "/") {
			return s, attrs, nil
		}
		var valid bool
		for _, k := range known {
			valid = valid || k == key
		}
		switch {
		case !valid:
			return "", nil, fmt.Errorf("unknown attribute %q: there are %s", key, strings.Join(known, ", "))
		case value == "":
			return "", nil, fmt.Errorf("attribute %s has no value", key)
		case attrs[key] != "":
			return "", nil, fmt.Errorf("attribute %s is there twice", key)
		case attrs == nil:
			attrs = make(map[string]string)
		}
		attrs[key] = value
		s = s[:i]
	}
}

func unixAddr(path string) (Addr, error) {
	switch {
	case path == "" || strings.IndexByte(path, 0) >= 0:
		return Addr{}, errors.New("bad socket name")
	case len(path) > maxUnixPath:
		return Addr{}, fmt.Errorf("socket name of %d bytes, at most %d fit", len(path), maxUnixPath)
	}
	return Addr{Network: "unix", Address: path}, nil
}

func tcpAddr(host, service string) (Addr, error) {
	switch {
	case host == "":
		return Addr{}, errors.New("no host")
	case strings.ContainsAny(host, "!/[]= \t\n\x00"), strings.Contains(host, ":") && !isIP(host):
		return Addr{}, fmt.Errorf("bad host %q", host)
	case host == "*":
		host = ""
	}
	port, err := portOf(service)
	if err != nil {
		return Addr{}, err
	}
	return Addr{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(port))}, nil
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

// Dial connects to addr, and shakes hands where it is of the network tls. TCP
// connections have TCP_NODELAY set, as package net does by default.
func Dial(ctx context.Context, addr, service string) (net.Conn, error) {
	a, err := Parse(addr, service)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(a.Address, ":") {
		return nil, fmt.Errorf("address %q: * can only be announced", addr)
	}
	switch {
	case a.Network == "tls":
		return dialTLS(ctx, a)
	case len(a.attrs) > 0:
		return nil, fmt.Errorf("address %q: mode and group are for who announces it", addr)
	}
	return dialer.DialContext(ctx, a.Network, a.Address)
}

// deadTime is how long a peer on another machine may be silent that has
// something to acknowledge, or is asked whether it is there.
const deadTime = time.Minute

// dialer finds out in minutes, not in a quarter of an hour, that a machine is
// gone.
var dialer = net.Dialer{
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadTime / 4, Interval: deadTime / 4, Count: 3},
	Control: func(network, _ string, c syscall.RawConn) (err error) {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadTime.Milliseconds()))
		})
		return errors.Join(cerr, err)
	},
}

// Config says how to announce an address.
type Config struct {
	// Open allows an address that is not the machine's own loopback and does not
	// ask for certificates: whoever reaches it may use the service.
	Open bool

	// Upgrade is for protocols that begin TLS themselves: the connections of a
	// tls address are *UpgradeConn, on which no handshake was made yet.
	Upgrade bool

	// Logger is told of TLS clients that are turned away, and of certificates
	// that are replaced. Nil means quiet.
	Logger *slog.Logger
}

// ErrNotLoopback is returned for an address that others can reach and that
// Config does not allow.
var ErrNotLoopback = errors.New("not a loopback address, and the service is open to whoever reaches it (tls with a ca asks for certificates)")

// Listen announces addr. A Unix socket that a dead server left behind is
// replaced; one that somebody answers at is not. Closing the listener removes
// its socket.
func (c Config) Listen(ctx context.Context, addr, service string) (net.Listener, error) {
	a, err := Parse(addr, service)
	if err != nil {
		return nil, err
	}
	if a.Network == "unix" {
		return listenUnix(ctx, a)
	}
	var files *tlsFiles
	open := true
	if a.Network == "tls" {
		if files, err = a.serverFiles(); err != nil {
			return nil, fmt.Errorf("announce %s: %w", addr, err)
		}
		open = files.ca == ""
	}
	// The name is looked up once, so that the address that is checked is the
	// one that is announced.
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	address := a.Address
	loopback := false
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
		loopback = ip.IsLoopback()
		address = net.JoinHostPort(ip.String(), port)
	}
	if open && !loopback && !c.Open {
		return nil, fmt.Errorf("announce %s: %w", addr, ErrNotLoopback)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	switch {
	case err != nil || files == nil:
		return ln, err
	case c.Upgrade:
		return newUpgradeListener(ln, files, c.Logger), nil
	}
	return newTLSListener(ln, files, c.Logger), nil
}

// Announced returns the address of a listener as it is dialled: unix!/path, or
// net!host!port.
func Announced(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix!" + a.String()
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return a.Network() + "!" + host + "!" + port
}
