package role

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// everything is a change of each kind.
var everything = []Change{
	sysctl("all", "0", "1"),
	{Object{kindSysctl, "net/ipv4/conf/eth0.100/rp_filter"}, "1", "2"},
	{Object{kindAddress, "lo 2001:db8::1/128"}, "", present},
	{Object{kindLocal, "198.51.100.0/24"}, "", present},
	{Object{kindRoute, "0.0.0.0/1 via 10.0.0.1"}, "", present},
	{Object{kindDecap, "/sys/fs/bpf/shunt-agent"}, "", `{"interfaces":[{"name":"eth0"}],"types":["ipip"],"ports":[6080],"to":["10.0.0.2/32"],"from":[],"virtual":["192.0.2.1/32"]}`},
}

// TestStateFile: what is written is read again, and only root may.
func TestStateFile(t *testing.T) {
	f := file{filepath.Join(t.TempDir(), "lib", "prepared.json")}
	unlock, err := f.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.lock(); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), f.path) {
		t.Errorf("a second one at the same time: %v", err)
	}
	unlock()
	if unlock, err = f.lock(); err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s, err := f.load()
	if err != nil || len(s.Changes) > 0 {
		t.Fatalf("without a file: %v, %v", s.Changes, err)
	}
	s.Changes = everything
	if err := f.save(s); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	got, err := f.load()
	if err != nil || !slices.Equal(got.Changes, everything) {
		t.Errorf("read again: %v, %v", got.Changes, err)
	}
	// What an earlier boot had is gone with it.
	earlier := s
	earlier.Boot = "another"
	if err := f.save(earlier); err != nil {
		t.Fatal(err)
	}
	if got, err = f.load(); err != nil || len(got.Changes) > 0 {
		t.Errorf("after a boot: %v, %v", got.Changes, err)
	}
	if report, err := Undo(Options{File: f.path}); !errors.Is(err, ErrBusy) {
		t.Errorf("undo beside another: %v, %v", report, err)
	}
	elsewhere := s
	elsewhere.Namespace = "net:[1]"
	if err := f.save(elsewhere); err != nil {
		t.Fatal(err)
	}
	if _, err = f.load(); err == nil || !strings.Contains(err.Error(), "it is of the network namespace net:[1], this is net:[") {
		t.Errorf("in another namespace: %v", err)
	}
	s.Changes = nil
	if err := errors.Join(f.save(s), f.save(s)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of nothing: %v", err)
	}
}

// TestDamagedState: each damage is named with its place, and nothing is done.
func TestDamagedState(t *testing.T) {
	f := file{filepath.Join(t.TempDir(), "prepared.json")}
	s, err := here()
	if err != nil {
		t.Fatal(err)
	}
	s.Changes = everything
	if err := f.save(s); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, damaged, want string }{
		{string(good), "", "line 1, column 0: unexpected end"},
		{string(good), string(good[:len(good)/2]), "unexpected end"},
		{string(good), strings.Repeat(" ", maxState+1), "more than 16777216 bytes"},
		{`"kind": "sysctl",`, `"kind" "sysctl",`, "line 7, column 14: invalid character"},
		{`"version": 1`, `"version": 2`, "version 2: this shunt-agent reads 1"},
		{`"version": 1`, `"version": "1"`, "line 2, column 16: json: cannot unmarshal string"},
		{`"boot"`, `"boat"`, `unknown field "boat"`},
		{s.Boot, "", "it does not say of which boot"},
		{`"kind": "sysctl"`, `"kind": "file"`, `changes[0]: unknown kind "file"`},
		{"net/ipv4/conf/all/arp_ignore", "kernel/modprobe", `changes[0]: sysctl: "kernel/modprobe" is no setting`},
		{"conf/all/arp_ignore", "conf/../arp_ignore", `changes[0]: sysctl: "net/ipv4/conf/../arp_ignore" is no setting`},
		{`"before": "0"`, `"before": "x"`, `changes[0]: sysctl: "x" is no number`},
		{"lo 2001:db8::1/128", "lo", `changes[2]: address: "lo" is no interface and address`},
		{"lo 2001:db8::1/128", "lo 10.0.0.0/8", `changes[2]: address: "lo 10.0.0.0/8"`},
		{`"after": "present"`, `"after": "there"`, `changes[2]: address: "there" is no value`},
		{"198.51.100.0/24", "198.51.100.0", `changes[3]: local-route: "198.51.100.0" is no route`},
		{"via 10.0.0.1", "via ::1", `changes[4]: route: "0.0.0.0/1 via ::1" is no route`},
		{"/sys/fs/bpf/shunt-agent", "shunt-agent", `changes[5]: decap: "shunt-agent" is no whole path`},
		{`[\"ipip\"]`, `[\"sit\"]`, `changes[5]: decap: read a decapsulation: unknown tunnel type "sit"`},
		{`[\"10.0.0.2/32\"]`, `[]`, `changes[5]: decap: no outer destination`},
	} {
		damaged := strings.Replace(string(good), test.old, test.damaged, 1)
		if damaged == string(good) {
			t.Fatalf("%q is not in the file:\n%s", test.old, good)
		}
		if err := os.WriteFile(f.path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Undo(Options{File: f.path})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), f.path) {
			t.Errorf("%q: %v, want %s", test.damaged[:min(len(test.damaged), 40)], err, test.want)
		}
		if left, err := os.ReadFile(f.path); err != nil || string(left) != damaged {
			t.Errorf("%s: the file was changed", test.want)
		}
	}
}
