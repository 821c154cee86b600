package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// childEnv makes the test binary a client of the socket that it names.
const childEnv = "SHUNT_API_TEST_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(childEnv); socket != "" {
		askAsChild(socket)
		return
	}
	os.Exit(m.Run())
}

// askAsChild prints what comes of a request for each role.
func askAsChild(socket string) {
	client := api.NewSocketClient(socket)
	defer client.Close()
	ctx := context.Background()
	results := map[string]string{}
	_, err := client.Timeouts(ctx)
	results["viewer"] = kindOf(err)
	outcome, err := client.EditTimeouts(ctx, api.TimeoutsEdit{UDP: new(api.Duration(10 * time.Second))}, api.Terms{})
	results["operator"], results["who"] = kindOf(err), outcome.Revision.Who
	results["admin"] = kindOf(client.Detach(ctx))
	_ = json.NewEncoder(os.Stdout).Encode(results)
}

// kindOf is the last word of the problem's type.
func kindOf(err error) string {
	problem, ok := errors.AsType[*api.Problem](err)
	switch {
	case err == nil:
		return "ok"
	case ok:
		return strings.TrimPrefix(problem.Type, "urn:shunt:problem:")
	default:
		return err.Error()
	}
}

// runAs runs this binary as a user and returns what it printed.
func runAs(t *testing.T, folder, socket string, credential syscall.Credential) map[string]string {
	t.Helper()
	binary := filepath.Join(folder, "child")
	if _, err := os.Stat(binary); errors.Is(err, fs.ErrNotExist) { // go test's own folder is closed to others
		text, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(binary, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.CommandContext(t.Context(), binary)
	child.Dir = "/"
	child.Env = []string{childEnv + "=" + socket}
	child.Stderr = os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &credential}
	text, err := child.Output()
	if err != nil {
		t.Fatal(err)
	}
	var results map[string]string
	if err := json.Unmarshal(text, &results); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return results
}

func TestSocketPeers(t *testing.T) {
	directortest.Privileged(t)
	const nobody, users = 65534, 100
	for _, test := range []struct {
		name       string
		opts       api.ListenOptions
		credential syscall.Credential
		want       map[string]string
	}{
		{"root", api.ListenOptions{}, syscall.Credential{}, map[string]string{"viewer": "ok", "operator": "ok", "admin": "ok", "who": "root (uid 0)"}},
		{
			"another_user",
			api.ListenOptions{},
			syscall.Credential{Uid: nobody, Gid: nobody},
			map[string]string{"viewer": "permission", "operator": "permission", "admin": "permission", "who": ""},
		},
		{
			"a_member_of_the_group",
			api.ListenOptions{Group: "users"},
			syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{users}},
			map[string]string{"viewer": "ok", "operator": "ok", "admin": "forbidden", "who": "nobody (uid 65534)"},
		},
		{
			"no_member_of_the_group",
			api.ListenOptions{Group: "100"},
			syscall.Credential{Uid: nobody, Gid: nobody},
			map[string]string{"viewer": "permission", "operator": "permission", "admin": "permission", "who": ""},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder, err := os.MkdirTemp("", "shunt-api-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(folder) })
			if err := os.Chmod(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(folder, "run", "s")
			d := newDirector(t, directortest.NewFake(director.State{}))
			h := api.NewHandler(d, api.Options{
				Log:    slog.New(slog.DiscardHandler),
				Detach: func(context.Context) error { return nil },
			})
			serveOn(t, h, socket, test.opts)
			if diff := cmp.Diff(test.want, runAs(t, folder, socket, test.credential)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestSocketOpenedToOthers: whoever gets past the file's mode is not root yet.
func TestSocketOpenedToOthers(t *testing.T) {
	directortest.Privileged(t)
	folder, err := os.MkdirTemp("", "shunt-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	serveOn(t, newHandler(t, directortest.NewFake(director.State{})), socket, api.ListenOptions{})
	for path, mode := range map[string]os.FileMode{folder: 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	got := runAs(t, folder, socket, syscall.Credential{Uid: 65534, Gid: 65534})
	want := map[string]string{"viewer": "unauthorized", "operator": "unauthorized", "admin": "unauthorized", "who": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
