package netaddr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// socketMode is for the owner alone: a store knows no users, so whoever can
// connect has it all.
const socketMode = 0o600

// listenUnix announces a socket. Two servers that find the same dead socket
// at the same moment could both replace it; what keeps two servers off one
// store is the lock on its partitions, not the socket.
func listenUnix(ctx context.Context, a Addr) (net.Listener, error) {
	path := a.Address
	fail := func(err error) (net.Listener, error) {
		return nil, fmt.Errorf("announce %s: %w", a.text, err)
	}
	if strings.HasPrefix(path, "@") {
		return fail(errors.New("a socket without a file has no permissions: anybody on the machine may connect"))
	}
	perm, err := newSocketPerm(a)
	if err != nil {
		return fail(err)
	}
	ln, err := perm.listen(ctx, path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ln, err
	}
	st, staterr := os.Lstat(path)
	if staterr != nil {
		return nil, staterr
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return fail(errors.New("a file of that name exists and is not a socket"))
	}
	var d net.Dialer
	conn, dialerr := d.DialContext(ctx, "unix", path)
	if dialerr == nil {
		conn.Close()
	}
	if !errors.Is(dialerr, syscall.ECONNREFUSED) {
		return fail(fmt.Errorf("somebody serves there already: %w", err))
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return perm.listen(ctx, path)
}

// A socketPerm says who may connect to a socket.
type socketPerm struct {
	mode fs.FileMode
	gid  int // -1 leaves it
}

func newSocketPerm(a Addr) (socketPerm, error) {
	p := socketPerm{socketMode, -1}
	if text := a.attrs["mode"]; text != "" {
		mode, err := strconv.ParseUint(text, 8, 32)
		if err != nil || mode&^0o777 != 0 || mode&0o200 == 0 {
			return p, fmt.Errorf("mode %s: want an octal number such as 0660, with which the owner can connect", text)
		}
		p.mode = fs.FileMode(mode)
	}
	if name := a.attrs["group"]; name != "" {
		g, err := user.LookupGroup(name)
		if err == nil {
			name = g.Gid
		}
		gid, nerr := strconv.ParseUint(name, 10, 31)
		if nerr != nil {
			return p, err // a name that nobody knows
		}
		p.gid = int(gid)
	}
	return p, nil
}

// listen makes a socket. Linux gives its file the mode that the socket has
// when it gets its name, so that nobody but the owner can connect before its
// group and mode are what they are to be.
func (p socketPerm) listen(ctx context.Context, path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), uint32(socketMode&p.mode)) }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if p.gid >= 0 {
		err = os.Lchown(path, -1, p.gid)
	}
	if err == nil {
		err = os.Chmod(path, p.mode)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("announce: %w", err)
	}
	return ln, nil
}
