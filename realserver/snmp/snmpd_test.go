package snmp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

var loopback = netip.MustParseAddr("127.0.0.1")

const (
	oidEffort = "1.3.6.1.4.1.8072.9999.1.0" // netSnmpPlaypen
	oidNote   = "1.3.6.1.4.1.8072.9999.2.0"
)

// snmpdConf has a busy host of two processors whose numbers are known.
const snmpdConf = `agentAddress udp:127.0.0.1:%d
rocommunity secret-community 127.0.0.1
createUser both SHA-256 "authenticate me" AES "encrypt me too"
createUser old MD5 "authenticate me" DES "encrypt me too"
createUser auth SHA "authenticate me"
createUser long SHA-512 "authenticate me" AES-256 "encrypt me too"
rouser both priv
rouser old priv
rouser auth auth
rouser long priv
override .1.3.6.1.4.1.2021.10.1.5.1 integer 50
override .1.3.6.1.4.1.2021.10.1.5.3 integer 150
override .1.3.6.1.4.1.2021.4.20.0 integer 1000
override .1.3.6.1.4.1.2021.4.27.0 integer 900
override .1.3.6.1.4.1.2021.11.67.0 integer 2
override .1.3.6.1.4.1.8072.9999.1.0 integer 42
override .1.3.6.1.4.1.8072.9999.2.0 octet_str "0.75"
`

// startSNMPD runs Debian's snmpd and returns its port.
func startSNMPD(t *testing.T, conf string) uint16 {
	t.Helper()
	program, err := exec.LookPath("snmpd")
	if err != nil {
		program = "/usr/sbin/snmpd"
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatal(err)
		}
		t.Skip("there is no snmpd: scripts/setup.sh installs it")
	}
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	port := taken.LocalAddr().(*net.UDPAddr).Port
	_ = taken.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "snmpd.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, conf, port), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", "-Lf", filepath.Join(folder, "log"), "-C", "-c", file, "-p", filepath.Join(folder, "pid"))
	cmd.Env = append(os.Environ(), "MIBS=", "SNMP_PERSISTENT_DIR="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return uint16(port)
}

// secret returns the name of a file that has it.
func secret(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestSNMPD asks Debian's snmpd in each way.
func TestSNMPD(t *testing.T) {
	port := startSNMPD(t, snmpdConf)
	v2c := realserver.SNMP{Version: realserver.SNMPv2c, CommunityFile: secret(t, "secret-community\n"), Port: port}
	v3 := func(user string, auth realserver.SNMPAuth, priv realserver.SNMPPriv) realserver.SNMP {
		s := realserver.SNMP{Version: realserver.SNMPv3, User: user, Port: port, Auth: auth, AuthFile: secret(t, "authenticate me\n"), Measure: realserver.SNMPMeasureLoad15}
		if priv != "" {
			s.Priv, s.PrivFile = priv, secret(t, "encrypt me too")
		}
		return s
	}
	with := func(s realserver.SNMP, edit func(s *realserver.SNMP)) realserver.SNMP {
		edit(&s)
		return s
	}
	both := v3("both", realserver.SNMPAuthSHA256, realserver.SNMPPrivAES)
	up := false
	for _, tt := range []struct {
		name  string
		terms realserver.SNMP
		want  float64
		err   string // has it
	}{
		{"run queue", with(v2c, func(s *realserver.SNMP) { s.Measure = realserver.SNMPMeasureLoad1 }), 0.25, ""},
		{"run queue by processors given", with(v2c, func(s *realserver.SNMP) { s.Measure, s.Processors = realserver.SNMPMeasureLoad15, 3 }), 0.5, ""},
		{"an object", with(v2c, func(s *realserver.SNMP) { s.OID = oidEffort }), 0.42, ""},
		{"an object that is text", with(v2c, func(s *realserver.SNMP) { s.OID, s.Scale = "."+oidNote, 1 }), 0.75, ""},
		{"no such object", with(v2c, func(s *realserver.SNMP) { s.OID = "1.3.6.1.4.1.8072.9999.3.0" }), 0, "has no object 1.3.6.1.4.1.8072.9999.3.0"},
		{"an object that is no number", with(v2c, func(s *realserver.SNMP) { s.OID = "1.3.6.1.2.1.1.1.0" }), 0, "is no number of 0 or more: it is of type OctetString"},
		{"v3 with both", both, 0.75, ""},
		{"v3 of old", v3("old", realserver.SNMPAuthMD5, realserver.SNMPPrivDES), 0.75, ""},
		{"v3 authenticated", v3("auth", realserver.SNMPAuthSHA, ""), 0.75, ""},
		{"v3 with long keys", v3("long", realserver.SNMPAuthSHA512, realserver.SNMPPrivAES256), 0.75, ""},
		{"another community", with(v2c, func(s *realserver.SNMP) { s.CommunityFile, s.Timeout = "", 300*time.Millisecond }), 0, "no answer within 300ms"},
		{"a user that is not known", v3("nobody", realserver.SNMPAuthSHA, ""), 0, "refuses user nobody as it is authenticated"},
		{"another passphrase", with(both, func(s *realserver.SNMP) { s.AuthFile = secret(t, "let me in anyway") }), 0, "refuses user both as it is authenticated"},
		{"another key", with(both, func(s *realserver.SNMP) { s.PrivFile, s.Timeout = secret(t, "let me in anyway"), 300*time.Millisecond }), 0, "see priv and priv-file"},
		{"less security", with(both, func(s *realserver.SNMP) { s.Priv, s.PrivFile = "", "" }), 0, "AuthorizationError"},
		{"a short passphrase", with(both, func(s *realserver.SNMP) { s.AuthFile = secret(t, "short") }), 0, "a passphrase of less than 8 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			terms := tt.terms.WithDefaults()
			if err := terms.Validate(); err != nil {
				t.Fatal(err)
			}
			m := &meter{host: loopback, terms: terms}
			load, ok, err := m.ask(context.Background())
			for end := time.Now().Add(20 * time.Second); !up && err != nil && time.Now().Before(end); { // until it has started
				load, ok, err = m.ask(context.Background())
			}
			up = true
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || !ok || load != tt.want {
				t.Fatalf("load %v, %v, %v; want %v", load, ok, err, tt.want)
			}
			if load, _, err = m.ask(context.Background()); err != nil || load != tt.want { // with what is known of it
				t.Errorf("asked again: load %v, %v; want %v", load, err, tt.want)
			}
		})
	}
}
