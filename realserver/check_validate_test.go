package realserver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/realserver"
)

// TestCheckValidate names the fields of what is wrong.
func TestCheckValidate(t *testing.T) {
	type check = realserver.Check
	http := func(h realserver.HTTPCheck) check { return check{Kind: realserver.CheckHTTP, HTTP: &h} }
	tls := func(c realserver.TLSCheck) check { return check{Kind: realserver.CheckTCP, TLS: &c} }
	dns := func(d realserver.DNSCheck) check { return check{Kind: realserver.CheckDNS, DNS: &d} }
	udp := func(e realserver.ExchangeCheck) check { return check{Kind: realserver.CheckUDP, Exchange: &e} }
	script := func(s realserver.ScriptCheck) check { return check{Kind: realserver.CheckScript, Script: &s} }
	status := func(first, last uint16) []realserver.StatusRange {
		return []realserver.StatusRange{{First: 200, Last: 200}, {First: first, Last: last}}
	}
	long := strings.Repeat("x", 5000)
	for _, test := range []struct {
		name  string
		check check
		want  []string // fields
	}{
		{"nothing", check{}, []string{"kind"}},
		{"unknown", check{Kind: "ftp", Port: 21}, []string{"kind"}},
		{"tcp", check{Kind: realserver.CheckTCP}, nil},
		{"http", check{Kind: realserver.CheckHTTP, Port: 8080, Via: realserver.ViaVirtual}, nil},
		{"grpc", check{Kind: realserver.CheckGRPC}, nil},
		{"smtp", check{Kind: realserver.CheckSMTP, TLS: &realserver.TLSCheck{}}, nil},
		{"udp", check{Kind: realserver.CheckUDP}, nil},
		{"icmp", check{Kind: realserver.CheckICMP, Via: realserver.ViaServer}, nil},
		{"dns", dns(realserver.DNSCheck{Name: "www.example.org", Type: "aaaa", Answer: "2001:db8::1"}), nil},
		{"dns of the root", dns(realserver.DNSCheck{Name: ".", Type: "SOA"}), nil},
		{"script", script(realserver.ScriptCheck{Command: []string{"/bin/check", "%h"}, Status: realserver.StatusNagios}), nil},
		{"file", check{Kind: realserver.CheckFile, File: &realserver.FileCheck{Path: "/run/weight"}}, nil},

		{"no name", check{Kind: realserver.CheckDNS}, []string{"dns.name"}},
		{"no command", check{Kind: realserver.CheckScript}, []string{"script.command"}},
		{"no path", check{Kind: realserver.CheckFile}, []string{"file.path"}},

		{"pace", check{Kind: realserver.CheckTCP, Interval: time.Second, Timeout: time.Second, Retry: time.Second}, nil},
		{"negative pace", check{Kind: realserver.CheckTCP, Interval: -1, Timeout: -1, Retry: -1}, []string{"interval", "timeout", "retry"}},
		{"fast", check{Kind: realserver.CheckTCP, Interval: 99 * time.Millisecond, Timeout: 999 * time.Microsecond, Retry: 1}, []string{"interval", "timeout", "retry"}},
		{"slow", check{Kind: realserver.CheckTCP, Interval: 25 * time.Hour, Timeout: 25 * time.Hour, Retry: 25 * time.Hour}, []string{"interval", "timeout", "retry"}},
		{"a long timeout", check{Kind: realserver.CheckTCP, Timeout: 6 * time.Second}, []string{"timeout"}},
		{"a late retry", check{Kind: realserver.CheckTCP, Interval: time.Second, Retry: 2 * time.Second}, []string{"retry"}},

		{"ways", check{Kind: realserver.CheckTCP, Via: "north"}, []string{"via"}},
		{"ICMP by the virtual address", check{Kind: realserver.CheckICMP, Via: realserver.ViaVirtual, Port: 1}, []string{"via", "port"}},
		{"foreign sections", check{
			Kind: realserver.CheckICMP, TLS: &realserver.TLSCheck{}, HTTP: &realserver.HTTPCheck{}, DNS: &realserver.DNSCheck{Name: "a"}, Exchange: &realserver.ExchangeCheck{},
			GRPC: &realserver.GRPCCheck{}, SMTP: &realserver.SMTPCheck{}, Script: &realserver.ScriptCheck{Command: []string{"/a"}}, File: &realserver.FileCheck{Path: "/a"},
		}, []string{"tls", "http", "dns", "exchange", "grpc", "smtp", "script", "file"}},

		{"tls", tls(realserver.TLSCheck{ServerName: "a", CA: "/ca", Certificate: "/c", Key: "/k", ExpiryWarning: time.Hour, RefuseWhenExpired: true}), nil},
		{"relative files", tls(realserver.TLSCheck{CA: "ca", Certificate: "c", Key: "k\x00"}), []string{"tls.ca", "tls.certificate", "tls.key"}},
		{"no key", tls(realserver.TLSCheck{Certificate: "/c"}), []string{"tls.key"}},
		{"no certificate", tls(realserver.TLSCheck{Key: "/k"}), []string{"tls.certificate"}},
		{"verified and not", tls(realserver.TLSCheck{CA: "/ca", SkipVerify: true, ExpiryWarning: -1}), []string{"tls.ca", "tls.expiry_warning"}},
		{"a server name with a space", tls(realserver.TLSCheck{ServerName: "a b"}), []string{"tls.server_name"}},

		{"a request", http(realserver.HTTPCheck{Version: 2, Method: "HEAD", Path: "/a?b=c", Host: "[2001:db8::1]:80", Headers: []realserver.Header{{Name: "X-A", Value: "a b"}}, Status: status(100, 999), Match: "^a", Digest: strings.Repeat("aB", 16)}), nil},
		{"sha", http(realserver.HTTPCheck{Digest: strings.Repeat("0f", 32)}), nil},
		{"a wrong request", http(realserver.HTTPCheck{Version: 3, Method: "G T", Path: "a", Host: "a/b", Match: "(", Digest: "abcd"}), []string{"http.version", "http.method", "http.path", "http.host", "http.match", "http.digest"}},
		{"a request in a request", http(realserver.HTTPCheck{Path: "/\r\nHost: b", Host: "a\r\nX: y"}), []string{"http.path", "http.host"}},
		{"more", http(realserver.HTTPCheck{Method: "CONNECT", Path: "/\x01", Match: long, Digest: "x"}), []string{"http.method", "http.path", "http.match", "http.digest"}},
		{"a bare IPv6 address", http(realserver.HTTPCheck{Host: "2001:db8::1"}), []string{"http.host"}},
		{"headers", http(realserver.HTTPCheck{Headers: []realserver.Header{{Name: "Host", Value: "a"}, {Name: "X Y"}, {Name: "X", Value: "a\nb"}, {Name: "X", Value: long}}}), []string{"http.headers[0]", "http.headers[1]", "http.headers[2]", "http.headers[3]"}},
		{"a status that is none", http(realserver.HTTPCheck{Status: status(99, 100)}), []string{"http.status[1]"}},
		{"a range backwards", http(realserver.HTTPCheck{Status: status(300, 200)}), []string{"http.status[1]"}},

		{"names", dns(realserver.DNSCheck{Name: "a..b", Type: "ANY", Answer: "\x00"}), []string{"dns.name", "dns.type", "dns.answer"}},
		{"a long label", dns(realserver.DNSCheck{Name: strings.Repeat("x", 64)}), []string{"dns.name"}},
		{"a long name", dns(realserver.DNSCheck{Name: strings.Repeat("x.", 127)}), nil},
		{"a longer name", dns(realserver.DNSCheck{Name: strings.Repeat("x.", 128)}), []string{"dns.name"}},
		{"a name with a space", dns(realserver.DNSCheck{Name: "a b"}), []string{"dns.name"}},
		{"the other family", dns(realserver.DNSCheck{Name: "a", Answer: "2001:db8::1"}), []string{"dns.answer"}},
		{"the other family too", dns(realserver.DNSCheck{Name: "a", Type: "AAAA", Answer: "192.0.2.1"}), []string{"dns.answer"}},

		{"much to send", udp(realserver.ExchangeCheck{Send: make([]byte, 65508), Expect: "["}), []string{"exchange.send", "exchange.expect"}},
		{"a service", check{Kind: realserver.CheckGRPC, GRPC: &realserver.GRPCCheck{Service: "a\x00"}}, []string{"grpc.service"}},
		{"hello", check{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{Hello: "a\r\nMAIL"}}, []string{"smtp.hello"}},
		{"a relative script", script(realserver.ScriptCheck{Command: []string{"check", "a\x00"}, User: "a b", Status: "good"}), []string{"script.command", "script.command[1]", "script.user", "script.status"}},
		{"an empty command", script(realserver.ScriptCheck{}), []string{"script.command"}},
		{"a relative file", check{Kind: realserver.CheckFile, File: &realserver.FileCheck{Path: "weight"}}, []string{"file.path"}},
	} {
		var fields []string
		if err := test.check.Validate(); err != nil {
			for _, part := range err.(interface{ Unwrap() []error }).Unwrap() {
				var problem *realserver.Problem
				if !errors.As(part, &problem) || problem.Text == "" {
					t.Fatalf("%s: %v is no problem of a field", test.name, part)
				}
				fields = append(fields, problem.Field)
			}
		}
		if diff := cmp.Diff(test.want, fields); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// Whatever times a valid check has, it is valid with its defaults too, and they are
// final.
func TestDefaultsAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times := func(least time.Duration) *rapid.Generator[time.Duration] {
			return rapid.OneOf(
				rapid.Just(time.Duration(0)), rapid.SampledFrom([]time.Duration{least, realserver.MinCheckInterval, realserver.MaxCheckInterval}),
				rapid.Custom(func(t *rapid.T) time.Duration {
					return time.Duration(rapid.Int64Range(int64(least), int64(10*time.Second)).Draw(t, "time"))
				}),
			)
		}
		check := realserver.Check{
			Kind: realserver.CheckTCP, Interval: times(realserver.MinCheckInterval).Draw(t, "interval"),
			Timeout: times(time.Millisecond).Draw(t, "timeout"), Retry: times(realserver.MinCheckInterval).Draw(t, "retry"),
			Rise: rapid.Uint16().Draw(t, "rise"), Fall: rapid.Uint16().Draw(t, "fall"),
		}
		full := check.WithDefaults()
		err, fullErr := check.Validate(), full.Validate()
		if (err == nil) != (fullErr == nil) || check.Timeout == 0 && check.Retry == 0 && err != nil {
			t.Fatalf("%+v: %v; with defaults, %+v: %v", check, err, full, fullErr)
		}
		if full.Interval == 0 || full.Timeout == 0 || full.Retry == 0 || full.Rise == 0 || full.Fall == 0 {
			t.Fatalf("%+v has no default of its own", full)
		}
		if again := full.WithDefaults(); again != full {
			t.Fatalf("%+v became %+v", full, again)
		}
	})
}
