package health_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// scripts makes a folder that nobody can go through and returns how to write a script
// there.
func scripts(t testing.TB) (dir string, write func(name, text string, mode os.FileMode) string) {
	t.Helper()
	// TempDir's own folders are closed to others.
	dir, err := os.MkdirTemp("", "shunt-scripts-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

func scriptTarget() health.Target {
	return health.Target{Server: netip.MustParseAddrPort("[2001:db8::7]:8080"), Virtual: netip.MustParseAddrPort("192.0.2.1:80")}
}

func runScript(t *testing.T, script realserver.ScriptCheck, timeout time.Duration) health.Result {
	t.Helper()
	return runScriptOf(t, script, scriptTarget(), timeout)
}

func runScriptOf(t *testing.T, script realserver.ScriptCheck, target health.Target, timeout time.Duration) health.Result {
	t.Helper()
	prober, err := health.NewProber(realserver.Check{Kind: realserver.CheckScript, Script: &script}, target, nil, health.Env{})
	if err != nil {
		t.Fatal(err)
	}
	defer prober.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return prober.Probe(ctx)
}

func TestScript(t *testing.T) {
	directortest.Privileged(t)
	_, write := scripts(t)
	status := write("status", `exit "$1"`, 0o755)
	plain, nagios, weight := realserver.StatusPlain, realserver.StatusNagios, realserver.StatusWeight
	for _, test := range []struct {
		meaning realserver.StatusMeaning
		status  int
		fails   bool
		weight  int64 // -1: none
		warns   bool
	}{
		{plain, 0, false, -1, false},
		{plain, 1, true, -1, false},
		{plain, 2, true, -1, false},
		{plain, 255, true, -1, false},
		{nagios, 0, false, -1, false},
		{nagios, 1, false, -1, true},
		{nagios, 2, true, -1, false},
		{nagios, 3, true, -1, false},
		{weight, 0, false, -1, false},
		{weight, 1, true, -1, false},
		{weight, 2, false, 0, false},
		{weight, 255, false, 253, false},
	} {
		got := runScript(t, realserver.ScriptCheck{Command: []string{status, strconv.Itoa(test.status)}, Status: test.meaning}, patient)
		said := int64(-1)
		if got.Weight != nil && got.Absolute {
			said = *got.Weight
		}
		if (got.Err != nil) != test.fails || said != test.weight || (got.Warning != "") != test.warns {
			t.Errorf("%q status %d: error %v, weight %d, warning %q, want %+v", test.meaning, test.status, got.Err, said, got.Warning, test)
		}
	}
	echo := write("echo", `echo "$@"; echo "$(id -u) $(id -g) $(pwd) $PATH"`, 0o755)
	got := runScript(t, realserver.ScriptCheck{Command: []string{echo, "%h", "%p", "-v%v:%q", "100%%"}}, patient)
	wantPass(t, got, "2001:db8::7 8080 -v192.0.2.1:80 100%\n65534 65534 / /usr/local/sbin:")
	got = runScriptOf(t, realserver.ScriptCheck{Command: []string{echo, "of no server:%h:%p:%v:%q:"}}, health.Target{}, patient)
	wantPass(t, got, "of no server::0::0:")
	got = runScript(t, realserver.ScriptCheck{Command: []string{echo, "as"}, User: "root"}, patient)
	wantPass(t, got, "as\n0 0 /")
	got = runScript(t, realserver.ScriptCheck{Command: []string{echo}, User: "no-such-user"}, patient)
	wantFail(t, got, "run scripts as no-such-user")
	got = runScript(t, realserver.ScriptCheck{Command: []string{"/no/such/script"}}, patient)
	wantFail(t, got, "run /no/such/script", "no such file or directory")
	got = runScript(t, realserver.ScriptCheck{Command: []string{write("text", "", 0o644)}}, patient)
	wantFail(t, got, "permission denied")
	got = runScript(t, realserver.ScriptCheck{Command: []string{write("killed", "kill -9 $$", 0o755)}}, patient)
	wantFail(t, got, "ended by a signal")
}

// TestScriptBounded runs scripts that do not behave.
func TestScriptBounded(t *testing.T) {
	directortest.Privileged(t)
	_, write := scripts(t)
	t.Run("never ends, and its children neither", func(t *testing.T) {
		path := write("forks", `sleep 1000 & echo $!; (trap "" TERM; sleep 1000) & echo $!; trap "" TERM INT; while :; do sleep 1000; done`, 0o755)
		got := runEndless(t, path, 2)
		wantFail(t, got, "run "+path, "no answer in time")
		wantGone(t, strings.Fields(got.Detail), 2)
	})
	t.Run("ends and leaves a child that holds its output", func(t *testing.T) {
		path := write("leaves", `sleep 1000 & echo $!`, 0o755)
		got := runScript(t, realserver.ScriptCheck{Command: []string{path}}, patient)
		wantPass(t, got, "")
		wantGone(t, strings.Fields(got.Detail), 1)
	})
	t.Run("a child that leaves the group", func(t *testing.T) {
		path := write("daemon", `setsid sleep 1000 & echo $!`, 0o755)
		got := runScript(t, realserver.ScriptCheck{Command: []string{path}}, patient)
		wantPass(t, got, "")
		// It may have been ended before it left.
		if pid, err := strconv.Atoi(got.Detail); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	t.Run("forks all the time", func(t *testing.T) {
		path := write("bomb", `echo $$; i=0; while [ $i -lt 500 ]; do sleep 1000 & i=$((i+1)); done; wait`, 0o755)
		got := runEndless(t, path, 1)
		wantFail(t, got, "no answer in time")
		if left := groupOf(t, got.Detail); len(left) > 0 {
			t.Errorf("%d of its processes are alive", len(left))
		}
	})
	t.Run("prints for ever", func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := runEndless(t, write("yes", `exec yes 0123456`, 0o755), 512)
		wantFail(t, got, "no answer in time")
		// Some hundred MB came by then.
		if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<20 {
			t.Errorf("%d bytes were allocated", after.TotalAlloc-before.TotalAlloc)
		}
		if want := strings.TrimSpace(strings.Repeat("0123456\n", 512)); got.Detail != want {
			t.Errorf("%d bytes of output are kept, want the first %d", len(got.Detail), len(want))
		}
	})
	t.Run("prints much", func(t *testing.T) {
		got := runScript(t, realserver.ScriptCheck{Command: []string{write("head", `head -c 10000000 /dev/zero; exit 1`, 0o755)}}, patient)
		wantFail(t, got, "status 1: ....")
		if len(got.Detail) != 4096 {
			t.Errorf("%d bytes of output are kept, want 4096", len(got.Detail))
		}
	})
	t.Run("reads", func(t *testing.T) {
		wantPass(t, runScript(t, realserver.ScriptCheck{Command: []string{write("cat", `cat; echo read`, 0o755)}}, patient), "read")
	})
}

// runEndless runs a script that does not end, with more and more time until it has said so
// many words: a busy machine begins it late.
func runEndless(t *testing.T, path string, words int) (got health.Result) {
	t.Helper()
	for timeout := 50 * time.Millisecond; timeout < patient; timeout *= 2 {
		got = runScript(t, realserver.ScriptCheck{Command: []string{path}}, timeout)
		if len(strings.Fields(got.Detail)) >= words {
			break
		}
	}
	return got
}

// groupOf waits until nobody of the process group is alive, and returns who still is
// when it gives up.
func groupOf(t *testing.T, group string) (pids []string) {
	t.Helper()
	if _, err := strconv.Atoi(group); err != nil {
		t.Fatalf("the script says %q, want its group", group)
	}
	for deadline := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
		pids = nil
		files, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			stat, _ := os.ReadFile(file) // which may have ended since
			_, text, _ := strings.Cut(string(stat), ") ")
			if fields := strings.Fields(text); len(fields) > 2 && fields[2] == group && fields[0] != "Z" {
				pids = append(pids, filepath.Base(filepath.Dir(file)))
			}
		}
		if len(pids) == 0 || time.Now().After(deadline) {
			return pids
		}
	}
}

// wantGone waits until no such process is alive: they are ended before the probe is, and
// reaped by init soon.
func wantGone(t *testing.T, pids []string, count int) {
	t.Helper()
	if len(pids) != count {
		t.Fatalf("the script says %q, want %d processes", pids, count)
	}
	for _, text := range pids {
		for deadline := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", text))
			if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process %s is alive: %s, %v", text, stat, err)
			}
		}
	}
}

// TestScriptTrust changes who may write what a script's path leads through.
func TestScriptTrust(t *testing.T) {
	directortest.Privileged(t)
	for _, test := range []struct {
		name   string
		change func(dir, script string) (string, error) // returns the path to run
		user   string
		fails  []string
	}{
		{"root's", nil, "nobody", nil},
		{"the user's", func(_, script string) (string, error) { return script, os.Chown(script, 65534, 65534) }, "nobody", nil},
		{"another's", func(_, script string) (string, error) { return script, os.Chown(script, 1, 1) }, "nobody", []string{"script belongs to user 1"}},
		{"the user's, run by root", func(_, script string) (string, error) { return script, os.Chown(script, 65534, 65534) }, "root", []string{"script belongs to user 65534"}},
		{"for all to write", func(_, script string) (string, error) { return script, os.Chmod(script, 0o757) }, "nobody", []string{"anyone may write", "script (mode 0757)"}},
		{"for a group to write", func(_, script string) (string, error) {
			return script, errors.Join(os.Chown(script, 0, 50), os.Chmod(script, 0o775))
		}, "nobody", []string{"group 50 may write", "script (mode 0775)"}},
		{"for root's group to write", func(_, script string) (string, error) { return script, os.Chmod(script, 0o775) }, "nobody", nil},
		{"a folder for all to write", func(dir, script string) (string, error) { return script, os.Chmod(dir, 0o777) }, "nobody", []string{"anyone may write"}},
		{"a folder with the sticky bit", func(dir, script string) (string, error) { return script, os.Chmod(dir, 0o777|os.ModeSticky) }, "nobody", nil},
		{"a link", func(dir, script string) (string, error) {
			return dir + "/link", os.Symlink("./script", dir+"/link")
		}, "nobody", nil},
		{"another's link", func(dir, script string) (string, error) {
			return dir + "/link", errors.Join(os.Symlink(script, dir+"/link"), os.Lchown(dir+"/link", 1, 1))
		}, "nobody", []string{"link belongs to user 1"}},
		{"a link into a folder for all", func(dir, script string) (string, error) {
			open := dir + "/open"
			return dir + "/link", errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777), os.Rename(script, open+"/script"), os.Symlink("open/script", dir+"/link"))
		}, "nobody", []string{"anyone may write", "/open"}},
		{"links in a circle", func(dir, _ string) (string, error) {
			return dir + "/a", errors.Join(os.Symlink("b", dir+"/a"), os.Symlink("a", dir+"/b"))
		}, "nobody", []string{"more than 40 symbolic links"}},
		{"a folder", func(dir, _ string) (string, error) { return dir, nil }, "nobody", []string{"is no regular file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, write := scripts(t)
			path := write("script", "exit 0", 0o755)
			if test.change != nil {
				var err error
				if path, err = test.change(dir, path); err != nil {
					t.Fatal(err)
				}
			}
			got := runScript(t, realserver.ScriptCheck{Command: []string{path}, User: test.user}, patient)
			if test.fails == nil {
				wantPass(t, got, "")
			} else {
				wantFail(t, got, append(test.fails, "run "+path)...)
			}
		})
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weight")
	check := realserver.Check{Kind: realserver.CheckFile, File: &realserver.FileCheck{Path: path}}
	server := netip.MustParseAddrPort("127.0.0.1:0")
	wantFail(t, probe(t, check, server, patient), "read the weight", "no such file")
	for _, test := range []struct {
		text   string
		weight int64 // -1: none
		fails  string
	}{
		{"100\n", 100, ""},
		{" 7 \r\nsecond line\n", 7, ""},
		{"0", 0, ""},
		{"2147483647", realserver.MaxWeight, ""},
		{"-1\n", -1, "says down"},
		{"-2\n", -1, "-2 is out of range"},
		{"2147483648", -1, "is out of range"},
		{"", -1, "its first line is not a number"},
		{"secret", -1, "its first line is not a number"},
		{strings.Repeat("1", 10<<20), -1, "its first line is not a number"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := probe(t, check, server, patient)
		if test.fails != "" {
			wantFail(t, got, test.fails)
			if strings.Contains(got.Err.Error(), "secret") {
				t.Errorf("%v: it quotes the file", got.Err)
			}
			continue
		}
		wantPass(t, got, fmt.Sprintf("weight %d", test.weight))
		if got.Weight == nil || *got.Weight != test.weight || !got.Absolute {
			t.Errorf("%q: weight %v, absolute %t", test.text, got.Weight, got.Absolute)
		}
	}
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	wantFail(t, probe(t, check, server, patient), "no regular file")
}
