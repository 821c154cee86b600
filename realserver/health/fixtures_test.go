package health_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// patient is more time than any answer on loopback takes; hurried is how long a probe
// of a peer that never answers may take, and stepwise of one that answers first, for whose
// steps there is time on a busy machine too.
const (
	patient  = 20 * time.Second
	hurried  = 60 * time.Millisecond
	stepwise = 2 * time.Second
)

// serve gives every connection to the handler and returns the address. It ends, with
// its connections, at the end of the test.
func serve(t testing.TB, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		listener.Close()
		<-done
	})
	return addrOf(listener.Addr())
}

func addrOf(addr net.Addr) netip.AddrPort { return netip.MustParseAddrPort(addr.String()) }

// closedPort is a port of loopback where no one listens.
func closedPort(t testing.TB) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return addrOf(listener.Addr())
}

// hang holds the connection until the other side leaves.
func hang(conn net.Conn) {
	var one [1]byte
	for {
		if _, err := conn.Read(one[:]); err != nil {
			return
		}
	}
}

// say sends a text at once and holds the connection.
func say(text string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := conn.Write([]byte(text)); err == nil {
			hang(conn)
		}
	}
}

// drip sends a byte of the text from time to time, over and over.
func drip(text string) func(net.Conn) {
	return func(conn net.Conn) {
		for i := 0; ; i++ {
			if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// probe asks once, of a prober of its own.
func probe(t testing.TB, check realserver.Check, server netip.AddrPort, timeout time.Duration) health.Result {
	t.Helper()
	env := health.NewEnv("")
	defer env.Close()
	prober, err := health.NewProber(check, health.Target{Server: server}, nil, env)
	if err != nil {
		t.Fatal(err)
	}
	defer prober.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return prober.Probe(ctx)
}

// wantPass and wantFail compare a result with what it is to be.
func wantPass(t *testing.T, got health.Result, detail string) {
	t.Helper()
	if got.Err != nil || !strings.Contains(got.Detail, detail) {
		t.Errorf("got %q, error %v, want it to pass with %q", got.Detail, got.Err, detail)
	}
}

func wantFail(t *testing.T, got health.Result, texts ...string) {
	t.Helper()
	if got.Err == nil {
		t.Fatalf("it passes with %q, want a failure that says %q", got.Detail, texts)
	}
	for _, text := range texts {
		if !strings.Contains(got.Err.Error(), text) {
			t.Errorf("the failure is %q, want it to say %q", got.Err, text)
		}
	}
	if size := len(got.Err.Error()); size > 1024 {
		t.Errorf("the failure has %d bytes", size)
	}
}

// authority issues certificates.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its own, PEM
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = template
	a.cert, a.key, a.file, _ = a.issue("ca", template)
	return a
}

// server issues a certificate of a server for so long.
func (a *authority) server(name string, lasts time.Duration, names ...string) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: names,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(lasts),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	_, _, file, keyFile := a.issue(name, template)
	pair, err := tls.LoadX509KeyPair(file, keyFile)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// issue signs a certificate and writes it and its key to files.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	a.t.Helper()
	fail := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	fail(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	fail(err)
	file, keyFile := filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	fail(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	fail(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	cert, err := x509.ParseCertificate(der)
	fail(err)
	return cert, key, file, keyFile
}
