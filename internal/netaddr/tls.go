package netaddr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	handshakeTime = 10 * time.Second
	maxHandshakes = 128         // under way, or not yet accepted, on a listener; one more ends the oldest
	lingerTime    = time.Second // for a client that is refused to read why
	lingerBytes   = 64 << 10    // of what it has sent meanwhile
)

// tlsFiles are the files that an address names, and what was last read from
// them.
type tlsFiles struct {
	ca, cert, key string // immutable; empty means none

	mu     sync.Mutex // guards the fields below
	stamps [3]stamp
	config *tls.Config // of a listener
}

// A stamp tells whether a file is still the one it was.
type stamp struct {
	mtime time.Time
	size  int64
}

func (a Addr) files() (*tlsFiles, error) {
	f := &tlsFiles{ca: a.attrs["ca"], cert: a.attrs["cert"], key: a.attrs["key"]}
	switch {
	case f.cert == "" && f.key != "":
		return nil, errors.New("a key without a cert")
	case f.key == "":
		f.key = f.cert
	}
	return f, nil
}

// certificate reads the certificate and its key, and tells what is wrong with
// them.
func (f *tlsFiles) certificate() (tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		var pe *os.PathError
		switch {
		case errors.As(err, &pe): // names its file
			return c, fmt.Errorf("certificate: %w", err)
		case f.key != f.cert:
			return c, fmt.Errorf("certificate %s with key %s: %w", f.cert, f.key, err)
		}
		return c, fmt.Errorf("certificate %s: %w", f.cert, err)
	}
	switch now := time.Now(); {
	case now.After(c.Leaf.NotAfter):
		return c, fmt.Errorf("certificate %s expired on %v", f.cert, c.Leaf.NotAfter)
	case now.Before(c.Leaf.NotBefore):
		return c, fmt.Errorf("certificate %s is not valid before %v", f.cert, c.Leaf.NotBefore)
	}
	return c, nil
}

// pool reads the certificates of the ca.
func (f *tlsFiles) pool() (*x509.CertPool, error) {
	if f.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca %s: there is no certificate in it", f.ca)
	}
	return pool, nil
}

// clientConfig reads what a dialled address needs.
func (a Addr) clientConfig() (*tls.Config, *tlsFiles, error) {
	f, err := a.files()
	if err != nil {
		return nil, nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: a.attrs["name"]}
	if cfg.ServerName == "" {
		if cfg.ServerName, _, err = net.SplitHostPort(a.Address); err != nil {
			return nil, nil, err
		}
	}
	if cfg.RootCAs, err = f.pool(); err != nil {
		return nil, nil, err
	}
	if f.cert != "" {
		c, err := f.certificate()
		if err != nil {
			return nil, nil, err
		}
		// Whatever authorities the server names: it will say what it thinks of ours.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	return cfg, f, nil
}

// serverFiles reads what an announced address needs.
func (a Addr) serverFiles() (*tlsFiles, error) {
	f, err := a.files()
	switch {
	case err != nil:
		return nil, err
	case f.cert == "":
		return nil, errors.New("a tls address is announced with a cert=FILE")
	case a.attrs["name"] != "":
		return nil, errors.New("name is for who dials")
	}
	_, err = f.current()
	return f, err
}

// current returns the configuration of a listener. If files have changed it
// is read again; the error is why that cannot be, and then the configuration
// is the old one, if there is one.
func (f *tlsFiles) current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stamps [3]stamp
	for i, name := range []string{f.cert, f.key, f.ca} {
		if name == "" {
			continue
		}
		if st, err := os.Stat(name); err == nil { // else reading it will tell
			stamps[i] = stamp{st.ModTime(), st.Size()}
		}
	}
	if f.config != nil && stamps == f.stamps {
		return f.config, nil
	}
	cert, err := f.certificate()
	if err != nil {
		return f.config, err
	}
	pool, err := f.pool()
	if err != nil {
		return f.config, err
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		// Connections are few and long; without tickets a certificate is looked at
		// for each.
		SessionTicketsDisabled: true,
	}
	if pool != nil {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	f.config, f.stamps = cfg, stamps
	return cfg, nil
}

func dialTLS(ctx context.Context, a Addr) (net.Conn, error) {
	cfg, files, err := a.clientConfig()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a.text, err)
	}
	conn, err := dialer.DialContext(ctx, "tcp", a.Address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTime, errors.New("no answer to a handshake: is it a tls server?"))
	defer cancel()
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("dial %s: %w", a.text, explain(err, "server"))
	}
	shown := "our certificate " + files.cert
	if files.cert == "" {
		shown = "us without a certificate"
	}
	return &tlsClient{tc, shown}, nil
}

// explain adds to the error of a handshake whose certificate it is about.
func explain(err error, peer string) error {
	var ve *tls.CertificateVerificationError
	if errors.As(err, &ve) && len(ve.UnverifiedCertificates) > 0 {
		c := ve.UnverifiedCertificates[0]
		return fmt.Errorf("the %s's certificate of %s, signed by %s: %w", peer, name(c.Subject), name(c.Issuer), ve.Err)
	}
	return err
}

func name(n pkix.Name) string {
	if s := n.String(); s != "" {
		return s
	}
	return "nobody"
}

// A tlsClient is a dialled connection. A server checks a client's certificate
// when the client thinks that the handshake is over, so what it has against it
// comes with the first read.
type tlsClient struct {
	*tls.Conn
	shown string // as errors have it
}

func (c *tlsClient) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		err = fmt.Errorf("server refused %s: %w", c.shown, op.Err)
	}
	return n, err
}

// Names returns the names in the certificate that the client at the other end
// of a listener's connection has shown, and that the listener's ca has signed:
// the common name, then URIs, hosts and mail addresses. There are none if it
// has shown none.
func Names(conn net.Conn) []string {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	st := tc.ConnectionState()
	if len(st.VerifiedChains) == 0 {
		return nil
	}
	c := st.PeerCertificates[0]
	var names []string
	if c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return slices.Concat(names, c.DNSNames, c.EmailAddresses)
}

// A tlsListener shakes hands with the clients of a listener, each in a
// goroutine of its own, and hands over those with whom that has gone well.
type tlsListener struct {
	net.Listener
	keys    *keyring
	log     *slog.Logger
	ready   chan accepted // those to hand over
	done    chan struct{} // closed by Close
	workers sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	closed  bool
	shaking []net.Conn // oldest first
}

// A keyring is the files of a listener, and tells what becomes of them.
type keyring struct {
	files *tlsFiles
	log   *slog.Logger

	mu     sync.Mutex // guards the field below
	broken string     // what was last wrong with files
}

func newKeyring(files *tlsFiles, log *slog.Logger) *keyring {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &keyring{files: files, log: log}
}

type accepted struct {
	conn net.Conn
	err  error
}

func newTLSListener(ln net.Listener, files *tlsFiles, log *slog.Logger) *tlsListener {
	keys := newKeyring(files, log)
	l := &tlsListener{Listener: ln, keys: keys, log: keys.log, ready: make(chan accepted), done: make(chan struct{})}
	l.workers.Go(l.acceptLoop)
	return l
}

// Accept returns a connection, of type *tls.Conn, whose handshake is over.
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends handshakes too, and returns when the listener's goroutines have
// ended.
func (l *tlsListener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.closed = true
	close(l.done)
	err := l.Listener.Close()
	for _, c := range l.shaking {
		c.Close()
	}
	l.mu.Unlock()
	l.workers.Wait()
	return err
}

func (l *tlsListener) acceptLoop() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			// It is for the caller of Accept to say whether to go on.
			select {
			case l.ready <- accepted{nil, err}:
				continue
			case <-l.done:
				return
			}
		}
		if !l.begin(conn) {
			conn.Close()
			continue
		}
		l.workers.Go(func() { l.shake(conn) })
	}
}

// begin notes a handshake, unless the listener is closed.
func (l *tlsListener) begin(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if len(l.shaking) >= maxHandshakes {
		l.shaking[0].Close()
		l.shaking = slices.Delete(l.shaking, 0, 1)
	}
	l.shaking = append(l.shaking, conn)
	return true
}

// end is begin's counterpart.
func (l *tlsListener) end(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.shaking, conn); i >= 0 {
		l.shaking = slices.Delete(l.shaking, i, i+1)
	}
}

// config returns the configuration for one more handshake, and logs what has
// become of its files.
func (k *keyring) config() *tls.Config {
	cfg, err := k.files.current()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.broken = ""
	case err.Error() != k.broken:
		k.broken = err.Error()
		k.log.Error("tls: going on with the old certificate", "err", err)
	}
	return cfg
}

// shake shakes hands with a client.
func (l *tlsListener) shake(conn net.Conn) {
	defer l.end(conn)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	tc := tls.Server(conn, l.keys.config())
	if err := tc.HandshakeContext(ctx); err != nil {
		l.log.Warn("tls: client turned away", "client", conn.RemoteAddr(), "err", explain(err, "client"))
		linger(conn)
		conn.Close()
		return
	}
	select {
	case l.ready <- accepted{tc, nil}:
	case <-l.done:
		conn.Close()
	}
}

// linger waits until a client that is refused has read why: a connection that
// is closed while something is unread loses what was sent last.
func linger(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok && c.CloseWrite() == nil {
		c.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, c, lingerBytes)
	}
}
