package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatsessions/projections/logtest"
)

// Certificates are those of servers and their clients, issued by an authority of their
// own. The exported fields are files.
type Certificates struct {
	CA                    string
	ServerCert, ServerKey string
	ClientCert, ClientKey string

	client *tls.Config // of the tests' own connections
}

// NewCertificates makes certificates for a server named redis.test at 127.0.0.1.
func NewCertificates(tb testing.TB) *Certificates {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "x")
	ca := &issuer{}
	c := &Certificates{}
	c.CA, _ = ca.issue(tb, file+"-ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	c.ServerCert, c.ServerKey = ca.issue(tb, file+"-server", &x509.Certificate{
		DNSNames: []string{"redis.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // to each other
	})
	c.ClientCert, c.ClientKey = ca.issue(tb, file+"-client", &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	pair, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
	logtest.MustRun(tb, err)
	c.client = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	c.client.RootCAs.AddCert(ca.certificate)
	return c
}

// An issuer signs certificates, with the first one that it issues.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

// issue completes and signs a certificate, and writes it and its key to files.
func (i *issuer) issue(tb testing.TB, file string, certificate *x509.Certificate) (certFile, keyFile string) {
	tb.Helper()
	i.serial++
	certificate.SerialNumber, certificate.Subject = big.NewInt(i.serial), pkix.Name{CommonName: filepath.Base(file)}
	certificate.NotBefore, certificate.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	logtest.MustRun(tb, err)
	parent, signer := i.certificate, i.key
	if parent == nil {
		parent, signer = certificate, key
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, parent, key.Public(), signer)
	logtest.MustRun(tb, err)
	if i.certificate == nil {
		i.key = key
		i.certificate, err = x509.ParseCertificate(der)
		logtest.MustRun(tb, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	logtest.MustRun(tb, err)
	certFile, keyFile = file+".crt", file+".key"
	logtest.MustRun(tb, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	logtest.MustRun(tb, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certFile, keyFile
}

// serverOptions are the TLS options of redis-server. Clients have to show a certificate.
func (c *Certificates) serverOptions() [][2]string {
	return [][2]string{
		{"tls-cert-file", c.ServerCert}, {"tls-key-file", c.ServerKey}, {"tls-ca-cert-file", c.CA}, {"tls-auth-clients", "yes"},
		{"tls-replication", "yes"}, {"tls-cluster", "yes"},
	}
}

// parameters adds what a URL says about TLS.
func (c *Certificates) parameters(others url.Values) url.Values {
	all := url.Values{"tls_ca": {c.CA}, "tls_cert": {c.ClientCert}, "tls_key": {c.ClientKey}}
	maps.Copy(all, others)
	return all
}
