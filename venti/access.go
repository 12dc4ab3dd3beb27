package venti

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"strata/internal/netaddr"
)

// A Rule says what some clients may do. ParseRule makes one from text:
//
//	allow|readonly|deny who...
//
// who is one of these, or several that must all be true:
//
//	all              any client
//	unix             one that has come by a Unix socket
//	10.1.0.0/16      one whose address begins so; 10.1.2.3 is one address
//	name=laptop      one with this name in its TLS certificate: the common name, a
//	                 URI, a host or a mail address; a * at the end stands for anything
//
// Of a server's rules the first that is about a client counts. Where there
// are rules and none is about it, it is denied. A client that is denied gets
// that answer to its hello, one that may only read gets it to each write.
type Rule struct {
	access access
	who    []condition
	text   string
}

// String returns the rule as ParseRule takes it.
func (r Rule) String() string { return r.text }

// An access is what a client may do.
type access int

const (
	denied access = iota
	readonly
	allowed
)

// accessNames are the words of rules.
var accessNames = map[string]access{"deny": denied, "readonly": readonly, "allow": allowed}

// A condition is one thing that a rule asks of a client; it is all of the
// fields that are set.
type condition struct {
	all, unix bool
	prefix    netip.Prefix // if it is valid
	name      string       // if it is not empty; may end in *
}

// ParseRule reads a rule.
func ParseRule(text string) (Rule, error) {
	words := strings.Fields(text)
	if len(words) < 2 {
		return Rule{}, fmt.Errorf("access rule %q: want allow, readonly or deny, and whom", text)
	}
	a, ok := accessNames[words[0]]
	if !ok {
		return Rule{}, fmt.Errorf("access rule %q: unknown access %q: want allow, readonly or deny", text, words[0])
	}
	r := Rule{access: a, text: strings.Join(words, " ")}
	for _, w := range words[1:] {
		c, err := parseCondition(w)
		if err != nil {
			return Rule{}, fmt.Errorf("access rule %q: %w", text, err)
		}
		r.who = append(r.who, c)
	}
	return r, nil
}

func parseCondition(w string) (condition, error) {
	if name, ok := strings.CutPrefix(w, "name="); ok {
		if stem := strings.TrimSuffix(name, "*"); name == "" || strings.Contains(stem, "*") {
			return condition{}, fmt.Errorf("bad name %q: want a name, with * at its end only", name)
		}
		return condition{name: name}, nil
	}
	switch w {
	case "all":
		return condition{all: true}, nil
	case "unix":
		return condition{unix: true}, nil
	}
	if p, err := netip.ParsePrefix(w); err == nil {
		if p.Addr().Is4In6() {
			return condition{}, fmt.Errorf("%s: write it as an IPv4 prefix", w)
		}
		if p.Masked() != p {
			return condition{}, fmt.Errorf("%s has bits behind its prefix: want %s", w, p.Masked())
		}
		return condition{prefix: p}, nil
	}
	if ip, err := netip.ParseAddr(w); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return condition{prefix: netip.PrefixFrom(ip, ip.BitLen())}, nil
	}
	return condition{}, fmt.Errorf("unknown client %q: want all, unix, an address, a prefix or name=NAME", w)
}

// A caller is who is at the other end of a connection, as far as can be
// known.
type caller struct {
	inside bool       // it is this process
	unix   bool       // it came by a Unix socket
	ip     netip.Addr // where it came from otherwise
	names  []string   // in its certificate
}

// newCaller looks at a connection whose TLS handshake, if it has one, is over.
func newCaller(nc net.Conn) caller {
	switch a := nc.RemoteAddr().(type) {
	case *net.UnixAddr:
		return caller{unix: true}
	case *net.TCPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		return caller{ip: ip.Unmap(), names: netaddr.Names(nc)}
	}
	return caller{inside: true}
}

// remote tells whether it is another machine.
func (c *caller) remote() bool { return !c.inside && !c.unix && !c.ip.IsLoopback() }

func (cond *condition) about(c *caller) bool {
	switch {
	case cond.all:
		return true
	case cond.unix:
		return c.unix
	case cond.prefix.IsValid():
		return cond.prefix.Contains(c.ip)
	}
	stem, any := strings.CutSuffix(cond.name, "*")
	for _, n := range c.names {
		if n == cond.name || any && strings.HasPrefix(n, stem) {
			return true
		}
	}
	return false
}

func (r *Rule) about(c *caller) bool {
	for i := range r.who {
		if !r.who[i].about(c) {
			return false
		}
	}
	return true
}

// accessOf returns what rules let a client do, and why. This process may do
// all.
func accessOf(rules []Rule, c *caller) (access, string) {
	if len(rules) == 0 || c.inside {
		return allowed, ""
	}
	for i := range rules {
		if rules[i].about(c) {
			return rules[i].access, rules[i].text
		}
	}
	return denied, "no rule is about it"
}

// errDenied is the answer to the hello of a client that is denied.
var errDenied = errors.New("access denied")
