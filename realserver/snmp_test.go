package realserver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

func TestSNMPValidate(t *testing.T) {
	v2c := realserver.SNMP{Version: realserver.SNMPv2c}
	v3 := realserver.SNMP{
		Version: realserver.SNMPv3, User: "shunt", Auth: realserver.SNMPAuthSHA256, AuthFile: "/a", Priv: realserver.SNMPPrivAES, PrivFile: "/p",
	}
	for _, tt := range []struct {
		terms realserver.SNMP
		edit  func(s *realserver.SNMP)
		field string // "": nothing is wrong
		want  string
	}{
		{v2c, func(*realserver.SNMP) {}, "", ""},
		{v3, func(*realserver.SNMP) {}, "", ""},
		{v3, func(s *realserver.SNMP) { s.Auth, s.AuthFile, s.Priv, s.PrivFile = "", "", "", "" }, "", ""},
		{v2c, func(s *realserver.SNMP) {
			s.CommunityFile, s.Measure, s.Processors = "/c", realserver.SNMPMeasureLoad15, 8
		}, "", ""},
		{v2c, func(s *realserver.SNMP) { s.OID, s.Scale = ".1.3.6.1.4.1.2021.10.1.5.1", 800 }, "", ""},
		{v2c, func(s *realserver.SNMP) { s.Interval = time.Second }, "", ""}, // which bounds the timeout
		{v2c, func(s *realserver.SNMP) { s.Version = "" }, "version", `unknown version ""`},
		{v2c, func(s *realserver.SNMP) { s.CommunityFile = "c" }, "community_file", "not an absolute path"},
		{v2c, func(s *realserver.SNMP) { s.User = "a" }, "user", "version v2c has no user"},
		{v2c, func(s *realserver.SNMP) { s.PrivFile = "/p" }, "priv_file", "version v2c has no priv-file"},
		{v3, func(s *realserver.SNMP) { s.CommunityFile = "/c" }, "community_file", "version v3 has no community"},
		{v3, func(s *realserver.SNMP) { s.User = "" }, "user", "a user of 0 bytes"},
		{v3, func(s *realserver.SNMP) { s.User = strings.Repeat("a", 33) }, "user", "a user of 33 bytes"},
		{v3, func(s *realserver.SNMP) { s.User = "a b" }, "user", "has a space"},
		{v3, func(s *realserver.SNMP) { s.Auth = "sha1" }, "auth", `unknown protocol "sha1"`},
		{v3, func(s *realserver.SNMP) { s.Priv = "3des" }, "priv", `unknown protocol "3des"`},
		{v3, func(s *realserver.SNMP) { s.AuthFile = "" }, "auth_file", "the passphrase for sha-256 is missing"},
		{v3, func(s *realserver.SNMP) { s.Priv = "" }, "priv", "the protocol that priv-file is for is missing"},
		{v3, func(s *realserver.SNMP) { s.Auth, s.AuthFile = "", "" }, "auth", "want auth"},
		{v2c, func(s *realserver.SNMP) { s.Interval = time.Millisecond }, "interval", "want 1s to 10m0s"},
		{v2c, func(s *realserver.SNMP) { s.Interval = time.Hour }, "interval", "want 1s to 10m0s"},
		{v2c, func(s *realserver.SNMP) { s.Timeout = 11 * time.Second }, "timeout", "want 100ms to 10s, the interval"},
		{v2c, func(s *realserver.SNMP) { s.Timeout = -1 }, "timeout", "out of range"},
		{v2c, func(s *realserver.SNMP) { s.Measure = "load" }, "measure", `unknown measure "load"`},
		{v2c, func(s *realserver.SNMP) { s.Scale = 1 }, "scale", "scale without oid"},
		{v2c, func(s *realserver.SNMP) { s.Processors = 1 }, "processors", "processors divide a run queue"},
		{v2c, func(s *realserver.SNMP) { s.OID = "sysUpTime.0" }, "oid", "no object identifier in numbers"},
		{v2c, func(s *realserver.SNMP) { s.OID = "1" + strings.Repeat(".1", 128) }, "oid", "no object identifier in numbers"},
		{v2c, func(s *realserver.SNMP) { s.OID, s.Measure = "1.3", realserver.SNMPMeasureLoad1 }, "measure", "want one of them"},
		{v2c, func(s *realserver.SNMP) { s.OID, s.Processors = "1.3", 1 }, "processors", "processors and oid"},
	} {
		terms := tt.terms
		tt.edit(&terms)
		err := terms.Validate()
		if tt.field == "" {
			if err != nil {
				t.Errorf("%+v: %v", terms, err)
			}
			continue
		}
		joined, _ := err.(interface{ Unwrap() []error })
		if joined == nil || len(joined.Unwrap()) != 1 {
			t.Errorf("%+v: %v, want one problem: %s", terms, err, tt.want)
			continue
		}
		if problem := joined.Unwrap()[0].(*realserver.Problem); problem.Field != tt.field || !strings.Contains(problem.Text, tt.want) {
			t.Errorf("%+v: %s: %s, want %s: %s", terms, problem.Field, problem.Text, tt.field, tt.want)
		}
	}
}

func TestSNMPWithDefaults(t *testing.T) {
	got := realserver.SNMP{Version: realserver.SNMPv2c, OID: "1.3", Interval: time.Second}.WithDefaults()
	want := realserver.SNMP{Version: realserver.SNMPv2c, OID: "1.3", Interval: time.Second, Timeout: time.Second, Port: 161, Scale: 100}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if pace := (realserver.SNMP{}).Pace(); pace != 13*time.Second {
		t.Errorf("pace %s, want 13s", pace)
	}
}
