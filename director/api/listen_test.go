package api_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

func TestListen(t *testing.T) {
	t.Run("folder_and_socket_are_the_owners_alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "run", "s")
		l, err := api.Listen(path, api.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{filepath.Dir(path): 0o700, path: 0o600, path + ".lock": 0o600} {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, error %v: want %v", name, info.Mode().Perm(), err, want)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Run("a_group_is_let_in", func(t *testing.T) {
		directortest.Privileged(t)
		path := filepath.Join(t.TempDir(), "run", "s")
		l, err := api.Listen(path, api.ListenOptions{Group: "users"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for name, want := range map[string]fs.FileMode{filepath.Dir(path): 0o710, path: 0o660, path + ".lock": 0o600} {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, error %v: want %v", name, info.Mode().Perm(), err, want)
			}
			if group := info.Sys().(*syscall.Stat_t).Gid; group != 100 && want != 0o600 {
				t.Errorf("%s: group %d", name, group)
			}
		}
	})
	t.Run("a_group_that_is_none_is_named", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		if _, err := api.Listen(path, api.ListenOptions{Group: "shnut"}); err == nil || !strings.Contains(err.Error(), `there is no group "shnut"`) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a_folder_closed_to_the_group_is_refused", func(t *testing.T) {
		folder := t.TempDir()
		if err := os.Chmod(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Listen(filepath.Join(folder, "s"), api.ListenOptions{Group: "users"}); err == nil || !strings.Contains(err.Error(), "chmod 0710") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a_second_daemon_is_refused", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := api.Listen(path, api.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.Listen(path, api.ListenOptions{}); !errors.Is(err, api.ErrInUse) {
			t.Errorf("error %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		again, err := api.Listen(path, api.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_ = again.Close()
	})
	t.Run("a_daemon_without_our_lock_is_seen_too", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		other, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := api.Listen(path, api.ListenOptions{}); !errors.Is(err, api.ErrInUse) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a_dead_daemons_socket_is_replaced", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		_ = dead.Close()
		l, err := api.Listen(path, api.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	})
	t.Run("a_file_in_the_way_is_kept", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Listen(path, api.ListenOptions{}); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("error %v", err)
		}
		if text, _ := os.ReadFile(path); string(text) != "precious" {
			t.Errorf("the file is now %q", text)
		}
	})
	t.Run("a_folder_others_can_write_is_refused", func(t *testing.T) {
		folder := t.TempDir()
		if err := os.Chmod(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Listen(filepath.Join(folder, "s"), api.ListenOptions{}); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a_path_too_long_is_named", func(t *testing.T) {
		if _, err := api.Listen("/"+strings.Repeat("x", 107), api.ListenOptions{}); err == nil || !strings.Contains(err.Error(), "107") {
			t.Errorf("error %v", err)
		}
	})
}

func TestClient(t *testing.T) {
	t.Run("names_with_dots_are_not_paths", func(t *testing.T) {
		client := serve(t, newHandler(t, directortest.NewFake(director.State{})))
		for _, ref := range []string{".", "..", "a/../b", "%2F", "tcp://192.0.2.99:80", "ü?#"} {
			_, err := client.Service(t.Context(), ref)
			if problem, ok := errors.AsType[*api.Problem](err); !ok || problem.Type != "urn:shunt:problem:not-found" {
				t.Errorf("%q: error %v", ref, err)
			}
		}
	})
	t.Run("says_that_no_daemon_runs", func(t *testing.T) {
		_, err := api.NewSocketClient(filepath.Join(t.TempDir(), "s")).Status(t.Context())
		problem, ok := errors.AsType[*api.Problem](err)
		if !ok || !strings.Contains(problem.Detail, "not running") || !strings.Contains(problem.Hint, "shuntd --config") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("says_when_it_is_not_a_shuntd", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		other := &http.Server{Handler: http.NotFoundHandler()}
		done := make(chan error, 1) // one value, sent once
		go func() { done <- other.Serve(l) }()
		_, err = api.NewSocketClient(path).Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), "is it a shuntd?") {
			t.Errorf("error %v", err)
		}
		_ = other.Close()
		<-done
	})
	t.Run("a_cancelled_request_says_so", func(t *testing.T) {
		client := serve(t, newHandler(t, directortest.NewFake(director.State{})))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := client.Stats(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestListenTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert := ca.issue(t, "shuntd", leaf{server: true})
	empty := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(empty, []byte("# nobody yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		opts api.TLSOptions
		want string
	}{
		{"no_certificate", api.TLSOptions{ClientCA: ca.file}, "TCP is served with TLS only"},
		{"no_credentials", api.TLSOptions{Certificate: cert}, "a client CA or a tokens file is required"},
		{"no_token", api.TLSOptions{Certificate: cert, Tokens: empty}, "nobody could come"},
		{"no_such_certificate", api.TLSOptions{Certificate: "/nowhere", ClientCA: ca.file}, "/nowhere"},
		{"a_ca_that_is_none", api.TLSOptions{Certificate: cert, ClientCA: empty}, "has no certificate in PEM"},
		{"no_such_tokens", api.TLSOptions{Certificate: cert, ClientCA: ca.file, Tokens: "/nowhere"}, "read the tokens"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.opts.Address = "127.0.0.1:0"
			l, err := api.ListenTLS(test.opts)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	t.Run("a_listener_that_tells_nobody_apart_is_not_served", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := newHandler(t, directortest.NewFake(director.State{})).Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "does not tell callers apart") {
			t.Errorf("error %v", err)
		}
	})
}
