package netaddr

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
)

// An upgradeListener hands over connections that TLS can be begun on.
type upgradeListener struct {
	net.Listener
	keys *keyring
}

func newUpgradeListener(ln net.Listener, files *tlsFiles, log *slog.Logger) *upgradeListener {
	return &upgradeListener{ln, newKeyring(files, log)}
}

func (l *upgradeListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &UpgradeConn{conn, l.keys}, nil
}

// An UpgradeConn is a connection of a tls address on which no TLS is spoken
// yet.
type UpgradeConn struct {
	net.Conn
	keys *keyring
}

// Upgrade shakes hands as the server does, within the time that a handshake
// may take. It returns the connection to go on with, a *tls.Conn, for which
// Names tells who the client is. After an error the connection is still to be
// closed.
func (c *UpgradeConn) Upgrade(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	tc := tls.Server(c.Conn, c.keys.config())
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", explain(err, "client"))
	}
	return tc, nil
}
