package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"shuntd": main})
}

// TestScripts runs the real command where it ends before it touches the kernel.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

func TestReport(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"nothing", nil, 0, ""},
		{"a_failure", errors.New("broke"), 1, "shuntd: broke\n"},
		{"usage", usage("do this", "bad flag"), 2, "shuntd: bad flag\nhint: do this\n"},
		{"several_lines", errors.Join(errors.New("a"), errors.New("b")), 1, "shuntd: a\nshuntd: b\n"},
		{
			"rights", fmt.Errorf("open the data plane: %w", syscall.EPERM), 1,
			"shuntd: open the data plane: operation not permitted\nhint: run as root, or with the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (for the ipvs data plane the first alone) and write access to the pin and socket folders\n",
		},
		{
			"another_daemon", fmt.Errorf("lock: %w", api.ErrInUse), 1,
			"shuntd: lock: another shuntd is running\nhint: stop it first, or give this one its own --socket, --pin-dir, --state and --interface\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := report(&stderr, test.err); code != test.code {
				t.Errorf("code %d, want %d", code, test.code)
			}
			if diff := cmp.Diff(test.want, stderr.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// settingsOf returns what the command line makes.
func settingsOf(t *testing.T, args ...string) config.Settings {
	t.Helper()
	var got config.Settings
	app := newApp(&bytes.Buffer{}, &bytes.Buffer{})
	app.Action = func(c *cli.Context) error {
		cfg, err := readSettings(c)
		got = cfg.Director
		return err
	}
	if err := app.Run(append([]string{"shuntd"}, args...)); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSettings(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "")
	t.Run("defaults", func(t *testing.T) {
		cfg, err := config.Parse("", nil)
		if err != nil {
			t.Fatal(err)
		}
		want := cfg.Director
		want.Interfaces = []string{"eth0"}
		if diff := cmp.Diff(want, settingsOf(t, "--interface", "eth0")); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("flags_override_the_file", func(t *testing.T) {
		const file = "testdata/full.yaml"
		want := settingsOf(t, "--config", file)
		if want.Socket != "/run/a.sock" || want.MaxConnections != 64<<10 || want.Mode != "generic" {
			t.Fatalf("the file is not read: %+v", want)
		}
		want.Interfaces, want.PinDir, want.Socket = []string{"eth1", "eth2"}, "/p", "/s"
		want.Mode, want.MaxConnections, want.MaxConnections6 = "native", 2<<20, 512<<10
		got := settingsOf(t, "--config", file, "-i", "eth1", "-i", "eth2", "--pin-dir", "/p", "--socket", "/s",
			"--generic=false", "--max-connections", "2Mi")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestPinDir(t *testing.T) {
	for args, want := range map[string]string{
		"detach":                           config.DefaultPinDir,
		"detach --pin-dir /a":              "/a",
		"--pin-dir /a detach":              "/a",
		"--pin-dir /a detach --pin-dir /b": "/b",
	} {
		got := ""
		app := newApp(&bytes.Buffer{}, &bytes.Buffer{})
		app.Command("detach").Action = func(c *cli.Context) error {
			got = given(c, "pin-dir", config.DefaultPinDir)
			return nil
		}
		if err := app.Run(append([]string{"shuntd"}, strings.Fields(args)...)); err != nil || got != want {
			t.Errorf("%s: %q, error %v: want %q", args, got, err, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"":                                 "no interface to attach to",
		"serve":                            `unexpected argument "serve"`,
		"--nope":                           "unknown flag -nope",
		"--config":                         "flag needs an argument: -config",
		"--log-level loud":                 `--log-level: unknown level "loud": want debug, info, warn or error`,
		"--log-format xml":                 `--log-format: unknown format "xml": want text or json`,
		"--max-connections lots":           `--max-connections: "lots" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`,
		"--max-connections 7":              "--max-connections: 7 is out of range: want 1Ki to 256Mi",
		"--pin-dir=":                       "--pin-dir: the value is empty",
		"--state=":                         "--state: the value is empty",
		"--config /nonexistent/shunt.yaml": "read configuration: open /nonexistent/shunt.yaml: no such file or directory",
		"detach all":                       `unexpected argument "all"`,
		"detach --force":                   "unknown flag -force",
		"version 1":                        `unexpected argument "1"`,
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"shuntd"}, strings.Fields(args)...), &stdout, &stderr)
		first, _, _ := strings.Cut(stderr.String(), "\n")
		if code != exitUsage || stdout.Len() > 0 || first != "shuntd: "+want {
			t.Errorf("%q: code %d, stdout %q, stderr %q: want %q", args, code, stdout.String(), stderr.String(), want)
		}
	}
}
