package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatsessions/projections/logtest"
)

// Certificates are one certificate, which is its own authority, and its key, as files: of
// servers named redis.test at 127.0.0.1 and of their clients.
type Certificates struct {
	Cert, Key string

	client *tls.Config // of the tests' own connections
}

// NewCertificates makes a certificate that nobody else trusts.
func NewCertificates(tb testing.TB) *Certificates {
	tb.Helper()
	dir := tb.TempDir()
	c := &Certificates{Cert: filepath.Join(dir, "redis.crt"), Key: filepath.Join(dir, "redis.key")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	logtest.MustRun(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"redis.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	logtest.MustRun(tb, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	logtest.MustRun(tb, err)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	logtest.MustRun(tb, os.WriteFile(c.Cert, authority, 0o600))
	logtest.MustRun(tb, os.WriteFile(c.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	c.client = &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(),
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}},
	}
	c.client.RootCAs.AppendCertsFromPEM(authority)
	return c
}
