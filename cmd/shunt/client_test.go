package main

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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// authority makes certificates into a folder.
type authority struct {
	t      *testing.T
	folder string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, folder: t.TempDir()}
	a.cert, a.key = a.make("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// make writes name.pem and name.key; without an authority yet it signs itself.
func (a *authority) make(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject.CommonName = name
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) path(name string) string { return filepath.Join(a.folder, name) }

func (a *authority) write(name string, text []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// TestServer: another host's daemon is reached over TLS, by a certificate or a
// token, given by flags or the environment.
func TestServer(t *testing.T) {
	a := newAuthority(t)
	a.make("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.make("client", &x509.Certificate{
		Subject:     pkix.Name{OrganizationalUnit: []string{"shunt-viewer"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	token, hash := api.NewToken()
	line, err := api.TokenLine("deploy", api.Operator, hash, time.Time{}, api.AgentTerms{})
	if err != nil {
		t.Fatal(err)
	}
	a.write("tokens", []byte(line+"\n"))
	a.write("token", []byte(token+"\n"))
	d := &daemon{socket: filepath.Join(t.TempDir(), "run", "shuntd.sock"), tls: &api.TLSOptions{
		Address: "127.0.0.1:0", Certificate: a.path("server.pem"), Key: a.path("server.key"),
		ClientCA: a.path("ca.pem"), Tokens: a.path("tokens"),
	}}
	d.seed()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop() })

	url := "https://" + d.address
	ca, cert, key := []string{"--server", url, "--cacert", a.path("ca.pem")}, []string{"--cert", a.path("client.pem"), "--key", a.path("client.key")}, []string{"--token-file", a.path("token")}
	for _, test := range []struct {
		name   string
		env    map[string]string
		args   [][]string
		code   int
		stdout string
		stderr string
	}{
		{"certificate", nil, [][]string{ca, cert, {"service", "list"}}, exitOK, "web", ""},
		{"certificate_may_too_little", nil, [][]string{ca, cert, {"timeouts", "--tcp", "1h"}}, exitFailed, "", "operator"},
		{"token", nil, [][]string{ca, key, {"timeouts", "--tcp", "1h"}}, exitOK, "", ""},
		{"who_by_token", nil, [][]string{ca, key, {"history", "--limit", "1"}}, exitOK, "token deploy", ""},
		{"nothing_to_show", nil, [][]string{ca, {"service", "list"}}, exitFailed, "", "shunt: "},
		{"unknown_authority", nil, [][]string{{"--server", url}, key, {"service", "list"}}, exitFailed, "", "certificate"},
		{"environment", map[string]string{
			"SHUNT_SERVER": url, "SHUNT_CACERT": a.path("ca.pem"), "SHUNT_TOKEN_FILE": a.path("token"),
		}, [][]string{{"service", "list"}}, exitOK, "web", ""},
		{"filter_of_the_same_name", nil, [][]string{ca, key, {"conn", "count", "--server", "10.0.0.12:80"}}, exitOK, "1\n", ""},
		{"socket_beside_the_environment", map[string]string{"SHUNT_SERVER": url}, [][]string{{"--socket", d.socket, "service", "list"}}, exitOK, "web", ""},
		{"socket_and_server", nil, [][]string{ca, {"--socket", d.socket, "service", "list"}}, exitUsage, "", "exclude each other"},
		{"token_and_socket", nil, [][]string{key, {"service", "list"}}, exitUsage, "", "--token-file is for --server"},
		{"not_a_url", nil, [][]string{{"--server", "127.0.0.1:1", "service", "list"}}, exitFailed, "", `server "127.0.0.1:1" is not a URL`},
		{"no_such_file", nil, [][]string{{"--server", url, "--cacert", "/nowhere", "service", "list"}}, exitFailed, "", "/nowhere"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("SHUNT_SOCKET", "")
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			args := []string{"shunt"}
			for _, more := range test.args {
				args = append(args, more...)
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), args, streams{nil, &stdout, &stderr})
			if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
			}
		})
	}
}

// TestRequests: a change by an exact name is one request; for one that is not
// found the list says what may be meant, and nothing else is changed.
func TestRequests(t *testing.T) {
	for _, test := range []struct {
		args string
		want []string
	}{
		{"server edit web 10.0.0.11:8080 --weight 1", []string{"PATCH /v1/services/web/servers/10.0.0.11:8080"}},
		{"service edit web --vip external", []string{"PATCH /v1/services/web"}},
		{"service add tcp://192.0.2.50:80", []string{"POST /v1/services"}},
		{"server add web 10.0.0.50 --method nat", []string{"POST /v1/services/web/servers"}},
		{"server edit w 10.0.0.11:8080 --weight 1", []string{"PATCH /v1/services/w/servers/10.0.0.11:8080", "GET /v1/services"}},
		{"service remove nobody", []string{"GET /v1/services/nobody", "GET /v1/services"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			d := &daemon{socket: filepath.Join(t.TempDir(), "run", "shuntd.sock")}
			d.seed()
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.stop() })
			recorder := newRecorder(t, d.socket)
			t.Setenv("SHUNT_SOCKET", recorder.socket)
			var output bytes.Buffer
			run(t.Context(), append([]string{"shunt"}, strings.Fields(test.args)...), streams{nil, &output, &output})
			if diff := cmp.Diff(test.want, recorder.requests()); diff != "" {
				t.Errorf("requests (-want +got)\n%s\n%s", diff, output.String())
			}
		})
	}
}
