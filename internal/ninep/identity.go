package ninep

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Identity knows the clients of a server by what they cannot make up; its
// method User is a Config.User. Whoever has come
//
//   - by a Unix socket is the user that the kernel says its process has, and may
//     attach as that one; root, and the server's own user, may attach as anybody.
//   - by TLS with a certificate is the user whom the certificate's common name
//     names, and may attach as that one.
//   - by TCP is nobody knows who: it is NoUser, whatever it says.
//   - by something else, which has begun in this process, is believed.
//
// Rules go before this. Anybody may attach as NoUser, and who names no user
// attaches as who it is. An attach as another user is refused.
type Identity struct {
	// Users names the users of Unix sockets: Config.Users.
	Users *Users
	// Rules say who clients are; the first that is about one counts.
	Rules []UserRule
}

// A UserRule says as whom some clients may attach. ParseUserRule makes one
// from text:
//
//	who user...
//
// where who is one of these, and a user of * is any:
//
//	unix             who has come by a Unix socket
//	uid=1000         that user, by a Unix socket
//	10.1.0.0/16      whose address begins so; 10.1.2.3 is one address
//	name=laptop      who has this name in its TLS certificate: the common name, a
//	                 URI, a host or a mail address; a * at the end stands for anything
//
// The first user is whom a client becomes that names none.
type UserRule struct {
	unix   bool
	uid    string       // if it is not empty
	prefix netip.Prefix // if it is valid
	name   string       // if it is not empty; may end in *
	users  []string
}

// ParseUserRule reads a rule.
func ParseUserRule(text string) (UserRule, error) {
	fail := func(format string, args ...any) (UserRule, error) {
		return UserRule{}, fmt.Errorf("user rule %q: %s", text, fmt.Sprintf(format, args...))
	}
	words := strings.Fields(text)
	if len(words) < 2 {
		return fail("want a client and users")
	}
	who := words[0]
	r := UserRule{users: words[1:]}
	if uid, ok := strings.CutPrefix(who, "uid="); ok {
		if uid == "" || strings.Trim(uid, "0123456789") != "" {
			return fail("bad uid %q", uid)
		}
		r.uid = uid
		return r, nil
	}
	if name, ok := strings.CutPrefix(who, "name="); ok {
		if name == "" || strings.Contains(strings.TrimSuffix(name, "*"), "*") {
			return fail("bad name %q: want a name, with * at its end only", name)
		}
		r.name = name
		return r, nil
	}
	if who == "unix" {
		r.unix = true
		return r, nil
	}
	if p, err := netip.ParsePrefix(who); err == nil && !p.Addr().Is4In6() {
		if p.Masked() != p {
			return fail("%s has bits behind its prefix: want %s", who, p.Masked())
		}
		r.prefix = p
		return r, nil
	}
	if ip, err := netip.ParseAddr(who); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		r.prefix = netip.PrefixFrom(ip, ip.BitLen())
		return r, nil
	}
	return fail("unknown client %q: want unix, uid=NUMBER, an address, a prefix or name=NAME", who)
}

// ParseUserRules reads rules.
func ParseUserRules(texts []string) ([]UserRule, error) {
	var rules []UserRule
	for _, text := range texts {
		r, err := ParseUserRule(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// A peer is who is at the other end of a connection.
type peer struct {
	uid   string     // by a Unix socket, or empty
	ip    netip.Addr // by TCP, or not valid
	names []string   // in its certificate
	cn    string     // the first of them, if it is a common name
}

// peerOf asks the kernel, or looks at a certificate that the listener has
// verified.
func peerOf(conn io.ReadWriteCloser) (peer, error) {
	var p peer
	switch c := conn.(type) {
	case *net.UnixConn:
		raw, err := c.SyscallConn()
		if err != nil {
			return p, err
		}
		var cred *unix.Ucred
		if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
			err = cerr
		}
		if err != nil {
			return p, fmt.Errorf("ask who the client is: %w", err)
		}
		p.uid = fmt.Sprint(cred.Uid)
		return p, nil
	case *tls.Conn:
		if st := c.ConnectionState(); len(st.VerifiedChains) > 0 {
			cert := st.PeerCertificates[0]
			if p.cn = cert.Subject.CommonName; p.cn != "" {
				p.names = append(p.names, p.cn)
			}
			for _, u := range cert.URIs {
				p.names = append(p.names, u.String())
			}
			p.names = slices.Concat(p.names, cert.DNSNames, cert.EmailAddresses)
		}
	}
	if c, ok := conn.(net.Conn); ok {
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			ip, _ := netip.AddrFromSlice(a.IP)
			p.ip = ip.Unmap()
		}
	}
	return p, nil
}

func (r *UserRule) about(p *peer) bool {
	switch {
	case r.unix:
		return p.uid != ""
	case r.uid != "":
		return p.uid == r.uid
	case r.prefix.IsValid():
		return r.prefix.Contains(p.ip)
	}
	stem, any := strings.CutSuffix(r.name, "*")
	for _, n := range p.names {
		if n == r.name || any && strings.HasPrefix(n, stem) {
			return true
		}
	}
	return false
}

// anyUser stands for any in a list of users.
const anyUser = "*"

// usersOf returns as whom a client may attach; the first is who it is.
func (id *Identity) usersOf(p *peer) []string {
	for i := range id.Rules {
		if id.Rules[i].about(p) {
			return id.Rules[i].users
		}
	}
	switch {
	case p.uid != "":
		uid := parseID(p.uid)
		name := id.Users.Name(uid)
		if uid == 0 || uid == uint32(os.Geteuid()) {
			return []string{name, anyUser}
		}
		return []string{name}
	case p.cn != "" && p.cn != anyUser:
		return []string{p.cn}
	case p.ip.IsValid():
		return nil
	}
	return []string{anyUser}
}

// Knows tells whether a rule says who a client is, or a certificate does, or
// the kernel.
func (id *Identity) Knows(conn io.ReadWriteCloser) bool {
	p, err := peerOf(conn)
	return err == nil && len(id.usersOf(&p)) > 0
}

// User returns the user as whom a client attaches that says it is uname.
func (id *Identity) User(conn io.ReadWriteCloser, uname string) (string, error) {
	p, err := peerOf(conn)
	if err != nil {
		return "", err
	}
	users := id.usersOf(&p)
	switch {
	case uname == NoUser, len(users) == 0:
		return NoUser, nil
	case uname == "" && users[0] != anyUser:
		return users[0], nil
	case uname == "":
		return NoUser, nil
	case slices.Contains(users, uname), slices.Contains(users, anyUser):
		return uname, nil
	}
	return "", &Error{fmt.Sprintf("permission denied: attach as %s by %s", uname, strings.Join(users, ", ")), syscall.EPERM}
}
