// Package tlstest makes certificates for tests.
package tlstest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA signs certificates for one test.
type CA struct {
	File string // its certificate, in PEM
	Cert *x509.Certificate

	t   testing.TB
	dir string
	key *ecdsa.PrivateKey
}

// NewCA returns one that is valid for an hour.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	a := &CA{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.Cert = a.sign(tmpl, tmpl, &a.key.PublicKey)
	a.File = filepath.Join(a.dir, "ca.pem")
	a.write(a.File, &pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw})
	return a
}

func (a *CA) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *CA) sign(tmpl, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *CA) write(file string, blocks ...*pem.Block) {
	a.t.Helper()
	var b bytes.Buffer
	for _, block := range blocks {
		pem.Encode(&b, block)
	}
	if err := os.WriteFile(file+".new", b.Bytes(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		a.t.Fatal(err)
	}
}

// Issue writes a certificate, with its key in the same file, and returns the
// file's name. It is for 127.0.0.1, as a server or a client, unless change,
// which may be nil, alters it first. What the file held before is replaced.
func (a *CA) Issue(name string, change func(*x509.Certificate)) string {
	a.t.Helper()
	key := a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(tmpl)
	}
	c := a.sign(tmpl, a.Cert, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(a.dir, name+".pem")
	a.write(file, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return file
}
