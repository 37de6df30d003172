package eventstore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatsessions/deploy/loopback"
	"chatsessions/eventstore"
	"chatsessions/eventstore/natstest"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

func TestConnectFails(t *testing.T) {
	server := natstest.Start(t, natstest.Config{User: "chatsessions", Password: "very secret"})
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	nobody := fmt.Sprintf("127.0.0.1:%d", port)
	for name, o := range map[string]eventstore.ConnectOptions{
		"nobody there":         {URL: "nats://u:hidden@" + nobody},
		"no URL":               {URL: " "},
		"not a URL":            {URL: "nats://u:hidden@host:port:"},
		"wrong password":       {URL: "nats://chatsessions:hidden@" + server.Addr()},
		"a token":              {URL: "nats://hidden@" + server.Addr()},
		"no credentials":       {URL: "nats://" + server.Addr()},
		"credentials missing":  {URL: server.URL(), CredentialsFile: filepath.Join(t.TempDir(), "missing.creds")},
		"authority missing":    {URL: server.URL(), CAFile: filepath.Join(t.TempDir(), "missing.pem")},
		"certificate, no key":  {URL: server.URL(), CertFile: "cert.pem"},
		"key, no certificate":  {URL: server.URL(), KeyFile: "key.pem"},
		"TLS is not served":    {URL: strings.Replace(server.URL(), "nats://", "tls://", 1)},
		"one of several wrong": {URL: "nats://a:hidden@" + nobody + ",nats://b:hidden@" + nobody},
	} {
		nc, err := eventstore.Connect(testContext(t), o)
		if err == nil {
			nc.Close()
			t.Errorf("%s: connected", name)
			continue
		}
		if strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "very secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := eventstore.Connect(ended, eventstore.ConnectOptions{URL: server.URL()}); err == nil {
		t.Error("connected after the end")
	}
}

func TestEmbeddedIsReachedByOthers(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	address := strings.TrimPrefix(e.ClientURL(), "nats://")
	if !strings.HasPrefix(address, "127.0.0.1:") {
		t.Fatalf("listens on %s", e.ClientURL())
	}
	for _, url := range []string{"nats://" + address, "nats://chatsessions:wrong@" + address, "nats://other:secret@" + address} {
		if nc, err := eventstore.Connect(testContext(t), eventstore.ConnectOptions{URL: url}); err == nil {
			nc.Close()
			t.Errorf("%s was let in", url)
		}
	}
	inside, outside := openLog(t, connectEmbedded(t, e)), openLog(t, connect(t, "nats://chatsessions:secret@"+address))
	id := newID()
	want := mustTransact(t, inside, request(id, "pat"), create(id, "pat"))
	if got := mustLoad(t, outside, id); !sameRecord(got, want.Record) {
		t.Errorf("%+v", got)
	}
}

// TestConnectTLS: the server shows a certificate and asks for one.
func TestConnectTLS(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := certificates(t, dir)
	server := natstest.Start(t, natstest.Config{
		Args:    []string{"--tlsverify", "--tlscert", cert, "--tlskey", key, "--tlscacert", ca},
		Options: []nats.Option{nats.RootCAs(ca), nats.ClientCert(cert, key)},
	})
	o := eventstore.ConnectOptions{URL: server.URL(), CAFile: ca, CertFile: cert, KeyFile: key}
	nc, err := eventstore.Connect(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	l := openLog(t, nc)
	id := newID()
	mustTransact(t, l, request(id, "pat"), create(id, "pat"))
	for _, spoil := range []func(*eventstore.ConnectOptions){
		func(o *eventstore.ConnectOptions) { o.CAFile = "" },
		func(o *eventstore.ConnectOptions) { o.CertFile, o.KeyFile = "", "" },
	} {
		bad := o
		spoil(&bad)
		if nc, err := eventstore.Connect(testContext(t), bad); err == nil {
			nc.Close()
			t.Errorf("connected with %+v", bad)
		}
	}
}

// certificates writes an authority and a certificate for 127.0.0.1.
func certificates(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	check(err)
	privateDER, err := x509.MarshalECPrivateKey(private)
	check(err)
	return write("ca.pem", "CERTIFICATE", der), write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", privateDER)
}

// TestConnectWithCredentialsFile: a server in operator mode knows no passwords.
func TestConnectWithCredentialsFile(t *testing.T) {
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		kp, err := create()
		check(err)
		public, err := kp.PublicKey()
		check(err)
		return kp, public
	}
	operator, operatorID := pair(nkeys.CreateOperator)
	account, accountID := pair(nkeys.CreateAccount)
	_, systemID := pair(nkeys.CreateAccount)
	user, userID := pair(nkeys.CreateUser)

	operatorClaims := jwt.NewOperatorClaims(operatorID)
	operatorClaims.SystemAccount = systemID
	operatorJWT, err := operatorClaims.Encode(operator)
	check(err)
	systemJWT, err := jwt.NewAccountClaims(systemID).Encode(operator)
	check(err)
	accountClaims := jwt.NewAccountClaims(accountID)
	accountClaims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := accountClaims.Encode(operator)
	check(err)
	userJWT, err := jwt.NewUserClaims(userID).Encode(account)
	check(err)
	seed, err := user.Seed()
	check(err)
	credentials, err := jwt.FormatUserConfig(userJWT, seed)
	check(err)
	file := filepath.Join(dir, "user.creds")
	check(os.WriteFile(file, credentials, 0o600))
	conf := filepath.Join(dir, "operator.conf")
	check(os.WriteFile(conf, fmt.Appendf(nil, `
operator: %q
system_account: %q
resolver: MEMORY
resolver_preload: { %s: %q, %s: %q }
jetstream { store_dir: $NATS_STORE_DIR, sync_interval: always }
`, operatorJWT, systemID, systemID, systemJWT, accountID, accountJWT), 0o600))

	server := natstest.Start(t, natstest.Config{File: conf, Options: []nats.Option{nats.UserCredentials(file)}})
	url := "nats://" + server.Addr()
	nc, err := eventstore.Connect(testContext(t), eventstore.ConnectOptions{URL: url, CredentialsFile: file})
	check(err)
	defer nc.Close()
	l := openLog(t, nc)
	id := newID()
	mustTransact(t, l, request(id, "pat"), create(id, "pat"))
	if nc, err := eventstore.Connect(testContext(t), eventstore.ConnectOptions{URL: url}); err == nil {
		nc.Close()
		t.Error("connected without credentials")
	}
}
