package labtest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// remote is a director whose API is on TCP, and a client's host.
type remote struct {
	*pair
	ca, strangers *authority
	url           string
	config        string
	lines         string            // of the tokens file
	tokens        map[string]string // by role
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	director := netip.MustParseAddrPort("10.1.0.1:9443")
	r := &remote{
		ca: newAuthority(t, "lab"), strangers: newAuthority(t, "strangers"), url: "https://" + director.String(),
		config: filepath.Join(t.TempDir(), "shunt.yaml"), tokens: map[string]string{},
	}
	for _, role := range []string{"viewer", "operator", "admin"} {
		r.token(t, role, role)
		r.ca.client(t, role, role)
		r.strangers.client(t, role, role)
	}
	writeFile(t, r.config, fmt.Sprintf(`
director:
  api: {listen: "%s", certificate: %s, key: %[2]s, client-ca: %s, tokens: %s}
services:
  - name: web
    listen: tcp://192.0.2.10:80
    method: nat
    servers: [{address: 10.2.0.11}, {address: 10.2.0.12}]
`, director, r.ca.server(t, director.Addr()), r.ca.file("ca"), r.config+".tokens"))
	r.pair = &pair{lab: lab, vip: netip.AddrPortFrom(vip4, 80)}
	r.d = startDaemon(t, lab, "--config", r.config)
	return r
}

// token makes a token by the CLI and adds its line to the file.
func (r *remote) token(t *testing.T, name, role string) {
	t.Helper()
	out := output(t, ".", filepath.Join(binaries, "shunt"), "token", "create", "--name", name, "--role", role, "-o", "json")
	var made struct{ Token, Line string }
	ok(t, json.Unmarshal([]byte(out), &made))
	r.tokens[name] = made.Token
	r.lines += made.Line + "\n"
	writeFile(t, r.config+".tokens", r.lines)
}

// curl asks from the client's host and returns the status and the body.
func (r *remote) curl(t *testing.T, args ...string) (status, body string) {
	t.Helper()
	args = append([]string{"--silent", "--show-error", "--max-time", "10", "--cacert", r.ca.file("ca"), "--write-out", "\n%{http_code}"}, args...)
	got := execute(t, r.lab.Client.Command(t.Context(), "curl", args...))
	i := strings.LastIndex(got.stdout, "\n")
	if i < 0 {
		t.Fatalf("curl %q: exit code %d: %s", args, got.code, got.stderr)
	}
	return got.stdout[i+1:], got.stdout[:i]
}

// The requests of the tests, by the least role that may make them.
func (r *remote) requests() map[string][]string {
	return map[string][]string{
		"viewer":   {r.url + "/v1/status"},
		"operator": {"-X", "PATCH", "-H", "Content-Type: application/json", "-d", `{"weight": 5}`, r.url + "/v1/services/web/servers/10.2.0.11:80"},
		"admin":    {"-X", "POST", r.url + "/v1/detach"},
	}
}

func TestRolesOverTLS(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	// What each caller is answered as viewer, operator and admin; a detach that is
	// let through comes last, for it ends the daemon.
	token := func(name string) []string { return []string{"-H", "Authorization: Bearer " + r.tokens[name]} }
	for _, caller := range []struct {
		name        string
		credentials []string
		want        [3]string // empty: not asked
	}{
		{"nobody", nil, [3]string{"401", "401", "401"}},
		{"wrong token", []string{"-H", "Authorization: Bearer shunt_0000000000000000000000000000000000000000000"}, [3]string{"401", "401", "401"}},
		{"password", []string{"--user", "admin:admin"}, [3]string{"401", "401", "401"}},
		{"certificate of strangers", []string{"--cert", r.strangers.file("admin")}, [3]string{"401", "401", "401"}},
		{"certificate of a server", []string{"--cert", r.ca.file("server")}, [3]string{"401", "401", "401"}},
		{"viewer's token", token("viewer"), [3]string{"200", "403", "403"}},
		{"viewer's certificate", []string{"--cert", r.ca.file("viewer")}, [3]string{"200", "403", "403"}},
		{"operator's token", token("operator"), [3]string{"200", "200", "403"}},
		{"operator's certificate", []string{"--cert", r.ca.file("operator")}, [3]string{"200", "200", "403"}},
		{"admin's certificate", []string{"--cert", r.ca.file("admin")}, [3]string{"200", "200", ""}},
		{"admin's token", token("admin"), [3]string{"200", "200", "204"}},
	} {
		for i, role := range []string{"viewer", "operator", "admin"} {
			if caller.want[i] == "" {
				continue
			}
			head := uint64(0)
			if caller.want[i] != "204" {
				head = r.d.head(t)
			}
			status, body := r.curl(t, append(caller.credentials, r.requests()[role]...)...)
			if status != caller.want[i] {
				t.Errorf("%s: a %s's request is answered %s, want %s: %s", caller.name, role, status, caller.want[i], body)
			}
			if problem := strings.Contains(body, `"urn:shunt:problem:`); problem != (status >= "400") {
				t.Errorf("%s: %s with %s", caller.name, status, body)
			}
			if strings.HasPrefix(status, "4") && r.d.head(t) != head {
				t.Errorf("%s: a refused request made a revision", caller.name)
			}
		}
	}
	r.d.wait(t)
	nothingLeft(t, r.lab, r.d)
}

func TestOverTLS(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	bearer := func(name string) []string { return []string{"-H", "Authorization: Bearer " + r.tokens[name]} }
	t.Run("plain_HTTP_is_refused", func(t *testing.T) {
		if status, body := r.curl(t, "-H", "Authorization: Bearer "+r.tokens["admin"], strings.Replace(r.url, "https", "http", 1)+"/v1/status"); status != "400" || strings.Contains(body, "revision") {
			t.Errorf("answered %s: %s", status, body)
		}
	})
	t.Run("health_is_public_and_metrics_are_not", func(t *testing.T) {
		for path, want := range map[string]string{"/healthz": "200", "/readyz": "200", "/metrics": "401", "/v1/openapi.yaml": "401", "/v1/nothing": "401"} {
			if status, body := r.curl(t, r.url+path); status != want {
				t.Errorf("%s is answered %s, want %s: %s", path, status, want, body)
			}
		}
		if status, body := r.curl(t, append(bearer("viewer"), r.url+"/metrics")...); status != "200" || !strings.Contains(body, `shunt_server_weight{`) {
			t.Errorf("answered %s: %s", status, body)
		}
	})
	t.Run("tokens_come_and_go_with_their_file", func(t *testing.T) {
		before := r.lines
		answered := func(want string) func() bool {
			return func() bool {
				status, _ := r.curl(t, append(bearer("grafana"), r.url+"/v1/status")...)
				return status == want
			}
		}
		r.token(t, "grafana", "viewer")
		await(t, "the new token is let in", answered("200"))
		writeFile(t, r.config+".tokens", before+"broken\n")
		await(t, "with a broken file, no token is let in", answered("401"))
		if _, body := r.curl(t, append(bearer("admin"), r.url+"/v1/status")...); !strings.Contains(body, "tokens cannot be checked now") {
			t.Errorf("answered %s", body)
		}
		await(t, "the daemon says that the file is broken", func() bool { return strings.Contains(r.d.log.String(), ".tokens:4: ") })
		writeFile(t, r.config+".tokens", before)
		await(t, "the other tokens are let in again", func() bool {
			status, _ := r.curl(t, append(bearer("admin"), r.url+"/v1/status")...)
			return status == "200"
		})
		if !answered("401")() {
			t.Error("the token that was taken away is let in")
		}
	})
	t.Run("the_CLI", func(t *testing.T) {
		file := writeFile(t, filepath.Join(t.TempDir(), "token"), r.tokens["operator"]+"\n")
		cli := func(args ...string) result {
			args = append([]string{"--server", r.url, "--cacert", r.ca.file("ca")}, args...)
			return execute(t, r.lab.Client.Command(t.Context(), filepath.Join(binaries, "shunt"), args...))
		}
		if got := cli("--token-file", file, "server", "edit", "web", "10.2.0.12:80", "--weight", "9"); got.code != 0 {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
		if who := read[[]api.RevisionInfo](t, r.d, "history", "--limit", "1")[0].Who; who != "token operator" {
			t.Errorf("the revision is by %q", who)
		}
		if got := cli("--cert", r.ca.file("viewer"), "server", "edit", "web", "10.2.0.12:80", "--weight", "1"); got.code != 1 || !strings.Contains(got.stderr, "viewer") {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
		if got := cli("status"); got.code != 1 || !strings.Contains(got.stderr, "no credentials") {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
		if got := cli("--cacert", r.strangers.file("ca"), "--token-file", file, "status"); got.code != 1 || !strings.Contains(got.stderr, "certificate") {
			t.Errorf("a server that nobody vouches for: exit code %d: %s", got.code, got.stderr)
		}
	})
	if refusals := r.d.told(t, 0, "access-refused"); len(refusals) == 0 {
		t.Error("no event tells of refused callers")
	}
	r.pair.requests(t, 4)
	r.d.noFaults(t)
}

// Members of the socket's group may use it, as operators; others may not.
func TestSocketGroup(t *testing.T) {
	t.Parallel()
	const nobody, group = 65534, 1 // 1 is daemon, which every host has
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	d := newDaemon(t, lab.Director, lab.DirectorLinks, "--config",
		writeFile(t, filepath.Join(t.TempDir(), "shunt.yaml"), "director: {socket-group: daemon}\n"))
	d.fails(t, 1, "chgrp 1 "+filepath.Dir(d.socket), "chmod 0710") // the folder keeps the group out
	d.noPins(t)
	ok(t, os.Chown(filepath.Dir(d.socket), 0, group))
	ok(t, os.Chmod(filepath.Dir(d.socket), 0o710))
	d.start(t)
	info, err := os.Stat(d.socket)
	ok(t, err)
	if mode := info.Mode().Perm(); mode != 0o660 {
		t.Errorf("the socket has mode %#o", mode)
	}
	by := func(groups []uint32, args ...string) result {
		cmd := d.ns.Command(t.Context(), filepath.Join(binaries, "shunt"), append([]string{"--socket", d.socket}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: groups}}
		return execute(t, cmd)
	}
	member := []uint32{group}
	if got := by(member, "service", "add", "tcp://192.0.2.10:80", "--name", "web"); got.code != 0 {
		t.Errorf("a member: exit code %d: %s", got.code, got.stderr)
	}
	if got := by(member, "detach"); got.code != 1 || !strings.Contains(got.stderr, "needs an admin") {
		t.Errorf("a member may not detach: exit code %d: %s", got.code, got.stderr)
	}
	if got := by(nil, "status"); got.code != 1 || !strings.Contains(got.stderr, "permission denied") {
		t.Errorf("another user: exit code %d: %s", got.code, got.stderr)
	}
	if who := read[[]api.RevisionInfo](t, d, "history", "--limit", "1")[0].Who; !strings.Contains(who, "65534") {
		t.Errorf("the revision is by %q", who)
	}
}
