package health

import (
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shunt-lb/shunt/realserver"
)

// FuzzDNS gives any message to who waits for the answer to a query.
func FuzzDNS(f *testing.F) {
	probe := newDNSProbe(realserver.DNSCheck{Name: "a.example", Type: "TXT", Answer: "x"}, &connector{asked: netip.MustParseAddrPort("192.0.2.7:53")})
	const id = 0x0102
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: id, Response: true}, Questions: []dnsmessage.Question{probe.question},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: probe.question.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.TXTResource{TXT: []string{"x"}},
		}},
	}
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(packed[:len(packed)-1])
	f.Add(packed[:12])
	f.Fuzz(func(t *testing.T, message []byte) {
		result, next := probe.judge(message, id)
		if next == done && result.Err == nil {
			// Only an answer to the query passes.
			var m dnsmessage.Parser
			header, err := m.Start(message)
			if err != nil || header.ID != id || !header.Response || result.Detail != "x" {
				t.Errorf("%x passes with %+v", message, result)
			}
		}
	})
}
