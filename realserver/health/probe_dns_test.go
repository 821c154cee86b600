package health_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shunt-lb/shunt/realserver"
)

// dnsServer answers queries by the function, over UDP and TCP at one port. Nil answers are
// not sent; over UDP several may be.
func dnsServer(t testing.TB, answer func(query dnsmessage.Message, tcp bool) [][]byte) netip.AddrPort {
	t.Helper()
	parse := func(raw []byte) (m dnsmessage.Message) {
		if err := m.Unpack(raw); err != nil {
			t.Errorf("the query is malformed: %v", err)
		}
		return m
	}
	address := serve(t, func(conn net.Conn) {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		for _, message := range answer(parse(query), true) {
			_, _ = conn.Write(binary.BigEndian.AppendUint16(nil, uint16(len(message))))
			_, _ = conn.Write(message)
		}
	})
	conn, err := net.ListenPacket("udp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		var buffer [4096]byte
		for {
			n, from, err := conn.ReadFrom(buffer[:])
			if err != nil {
				return
			}
			for _, message := range answer(parse(buffer[:n]), false) {
				_, _ = conn.WriteTo(message, from)
			}
		}
	}()
	return address
}

// reply packs an answer of the records to the query, changed by the function.
func reply(query dnsmessage.Message, change func(*dnsmessage.Message), bodies ...dnsmessage.ResourceBody) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true}, Questions: query.Questions}
	for _, body := range bodies {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{
			Name: query.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60,
		}, Body: body})
	}
	if change != nil {
		change(&m)
	}
	packed, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return packed
}

func TestDNS(t *testing.T) {
	name := dnsmessage.MustNewName
	a := &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}
	records := map[dnsmessage.Type][]dnsmessage.ResourceBody{
		dnsmessage.TypeA:     {&dnsmessage.CNAMEResource{CNAME: name("alias.example.org.")}, a, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}}},
		dnsmessage.TypeAAAA:  {&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}},
		dnsmessage.TypeCNAME: {&dnsmessage.CNAMEResource{CNAME: name("Alias.example.org.")}},
		dnsmessage.TypeMX:    {&dnsmessage.MXResource{Pref: 10, MX: name("mx.example.org.")}},
		dnsmessage.TypeNS:    {&dnsmessage.NSResource{NS: name("ns.example.org.")}},
		dnsmessage.TypePTR:   {&dnsmessage.PTRResource{PTR: name("host.example.org.")}},
		dnsmessage.TypeSOA:   {&dnsmessage.SOAResource{NS: name("ns.example.org."), MBox: name("me.example.org."), Serial: 1, Refresh: 2, Retry: 3, Expire: 4, MinTTL: 5}},
		dnsmessage.TypeSRV:   {&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 53, Target: name("srv.example.org.")}},
		dnsmessage.TypeTXT:   {&dnsmessage.TXTResource{TXT: []string{"two ", "Parts"}}},
	}
	all := func(q dnsmessage.Message, _ bool) [][]byte {
		return [][]byte{reply(q, nil, records[q.Questions[0].Type]...)}
	}
	good := dnsServer(t, all)
	long := make([]dnsmessage.ResourceBody, 3000)
	for i := range long {
		long[i] = a
	}
	for _, test := range []struct {
		name    string
		server  netip.AddrPort
		dns     realserver.DNSCheck
		timeout time.Duration
		detail  string
		fails   []string
	}{
		{"any answer", good, realserver.DNSCheck{}, patient, "192.0.2.1", nil},
		{"one of the answers", good, realserver.DNSCheck{Answer: "192.0.2.2"}, patient, "192.0.2.2", nil},
		{"by TCP", good, realserver.DNSCheck{Answer: "192.0.2.2", TCP: true}, patient, "192.0.2.2", nil},
		{"AAAA", good, realserver.DNSCheck{Type: "AAAA", Answer: "2001:db8:0::1"}, patient, "2001:db8::1", nil},
		{"CNAME", good, realserver.DNSCheck{Type: "CNAME", Answer: "alias.EXAMPLE.org"}, patient, "Alias.example.org.", nil},
		{"MX", good, realserver.DNSCheck{Type: "mx", Answer: "10 mx.example.org"}, patient, "10 mx.example.org.", nil},
		{"NS", good, realserver.DNSCheck{Type: "NS", Answer: "ns.example.org."}, patient, "ns.example.org.", nil},
		{"PTR", good, realserver.DNSCheck{Type: "PTR", Answer: "host.example.org"}, patient, "host.example.org.", nil},
		{"SOA", good, realserver.DNSCheck{Type: "SOA"}, patient, "ns.example.org. me.example.org. 1 2 3 4 5", nil},
		{"SRV", good, realserver.DNSCheck{Type: "SRV", Answer: "1 2 53 srv.example.org"}, patient, "1 2 53 srv.example.org.", nil},
		{"TXT", good, realserver.DNSCheck{Type: "TXT", Answer: "two Parts"}, patient, "two Parts", nil},
		{"TXT in other case", good, realserver.DNSCheck{Type: "TXT", Answer: "two parts"}, patient, "two Parts", []string{`"two parts" is not among the answer's 1 records`}},
		{"another answer", good, realserver.DNSCheck{Answer: "192.0.2.9"}, patient, "192.0.2.1", []string{`"192.0.2.9" is not among the answer's 3 records`}},
		{"no record", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte { return [][]byte{reply(q, nil)} }), realserver.DNSCheck{}, patient, "", []string{"the answer has no record"}},
		{"an error", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{reply(q, func(m *dnsmessage.Message) { m.RCode, m.Questions = dnsmessage.RCodeServerFailure, nil })}
		}), realserver.DNSCheck{}, patient, "", []string{"the server answers SERVFAIL"}},
		{"others' answers before its own", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{
				{1},
				nil, make([]byte, 12), reply(q, func(m *dnsmessage.Message) { m.ID++ }, a), reply(q, func(m *dnsmessage.Message) { m.Response = false }, a),
				reply(q, func(m *dnsmessage.Message) { m.Questions = nil }, a),
				reply(q, func(m *dnsmessage.Message) {
					m.Questions = []dnsmessage.Question{{Name: name("other."), Type: 1, Class: 1}}
				}, a), reply(q, nil, a),
			}
		}), realserver.DNSCheck{Answer: "192.0.2.1"}, patient, "192.0.2.1", nil},
		{"others' answers only", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{reply(q, func(m *dnsmessage.Message) { m.ID++ }, a)}
		}), realserver.DNSCheck{}, hurried, "", []string{"no answer in time", "what came is no answer to this query"}},
		{"another's answer by TCP", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{reply(q, func(m *dnsmessage.Message) { m.ID++ }, a)}
		}), realserver.DNSCheck{TCP: true}, patient, "", []string{"what came is no answer to this query"}},
		{"what did not fit", dnsServer(t, func(q dnsmessage.Message, tcp bool) [][]byte {
			if !tcp {
				return [][]byte{reply(q, func(m *dnsmessage.Message) { m.Truncated = true })}
			}
			return [][]byte{reply(q, nil, long...)}
		}), realserver.DNSCheck{Answer: "192.0.2.1"}, patient, "192.0.2.1", nil},
		{"what never fits", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{reply(q, func(m *dnsmessage.Message) { m.Truncated = true })}
		}), realserver.DNSCheck{}, patient, "", []string{"the answer over TCP is cut off"}},
		{"a record that is cut off", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			packed := reply(q, nil, a)
			return [][]byte{packed[:len(packed)-2]}
		}), realserver.DNSCheck{}, patient, "", []string{"read the answer's records"}},
		{"a name that points to itself", dnsServer(t, func(q dnsmessage.Message, _ bool) [][]byte {
			packed := reply(q, nil)
			packed[7] = 1 // One answer, whose name is a pointer to where it stands.
			return [][]byte{append(packed, 0xc0, byte(len(packed)), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4)}
		}), realserver.DNSCheck{}, patient, "", []string{"read the answer's records"}},
		{"hangs", dnsServer(t, func(dnsmessage.Message, bool) [][]byte { return nil }), realserver.DNSCheck{}, hurried, "", []string{"wait for an answer: no answer in time"}},
		{"hangs by TCP", serve(t, hang), realserver.DNSCheck{TCP: true}, hurried, "", []string{"read the answer: no answer in time"}},
		{"short by TCP", serve(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 100)); _, _ = conn.Write([]byte{0xff, 0xff, 1}) }), realserver.DNSCheck{TCP: true}, patient, "", []string{"read the answer: the connection was closed"}},
		{"closed", closedPort(t), realserver.DNSCheck{}, patient, "", []string{"connection refused"}},
		{"closed by TCP", closedPort(t), realserver.DNSCheck{TCP: true}, patient, "", []string{"connection refused"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.dns.Name = "www.example.org"
			got := probe(t, realserver.Check{Kind: realserver.CheckDNS, DNS: &test.dns}, test.server, test.timeout)
			if test.fails == nil {
				wantPass(t, got, test.detail)
				return
			}
			wantFail(t, got, test.fails...)
			if got.Detail != test.detail {
				t.Errorf("detail %q, want %q", got.Detail, test.detail)
			}
		})
	}
	// The root has a name too: keepalived asks for its SOA.
	wantPass(t, probe(t, realserver.Check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: ".", Type: "SOA"}}, good, patient), "ns.example.org.")
}
