package kernel

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
)

var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	web  = ServiceID{Protocol: TCP, Address: at("192.0.2.1:80")}
	sip  = ServiceID{Protocol: UDP, Address: at("192.0.2.1:5060")}
	sctp = ServiceID{Protocol: SCTP, Address: at("[2001:db8::1]:2905")}
)

// recorded returns the kernel's answers of that name, without the outer
// attribute if there is one.
func recorded(t testing.TB, name string, outer uint16) (answers [][]byte) {
	t.Helper()
	f, err := os.Open("testdata/answers.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, text, _ := strings.Cut(lines.Text(), " ")
		if line != name {
			continue
		}
		b, err := hex.DecodeString(text)
		if err == nil && outer != 0 {
			b, err = only(b, outer)
		}
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, b)
	}
	if len(answers) == 0 {
		t.Fatalf("testdata/answers.txt has no answer %s", name)
	}
	return answers
}

// skipBigEndian: what is recorded is in the order of octets of x86.
func skipBigEndian(t testing.TB) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the recorded answers are little-endian")
	}
}

func TestDecodeRecordedAnswers(t *testing.T) {
	skipBigEndian(t)
	decode := func(name string, outer uint16, decode func([]byte) (any, error)) (all []any) {
		for _, b := range recorded(t, name, outer) {
			v, err := decode(b)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			all = append(all, v)
		}
		return all
	}
	server := func(f Family) func([]byte) (any, error) {
		return func(b []byte) (any, error) { return decodeServer(b, f) }
	}
	for name, c := range map[string]struct{ want, got []any }{
		"info": {
			[]any{Info{Version: "1.2.1", TableSize: 4096}},
			decode("info", 0, func(b []byte) (any, error) { return decodeInfo(b) }),
		},
		"timeouts": {
			[]any{Timeouts{TCP: 900 * time.Second, TCPFin: 120 * time.Second, UDP: 300 * time.Second}},
			decode("config", 0, func(b []byte) (any, error) { return decodeTimeouts(b) }),
		},
		"services": {
			[]any{
				ServiceEntry{Service: Service{ServiceID: sctp, Scheduler: "wlc", Flags: FlagPersistent, Timeout: time.Minute, Prefix: 64}},
				ServiceEntry{Service: Service{ServiceID: web, Scheduler: "sh", Flags: FlagScheduler1 | FlagScheduler2, Prefix: 32}},
				ServiceEntry{Service: Service{ServiceID: sip, Scheduler: "rr", Flags: FlagPersistent | FlagOnePacket, Timeout: time.Minute, Prefix: 24, Engine: "sip"}},
				ServiceEntry{Service: Service{ServiceID: MarkID(7, IPv4), Scheduler: "wlc", Prefix: 8, OddMask: netip.MustParseAddr("255.0.255.0")}},
				ServiceEntry{Service: Service{ServiceID: MarkID(7, IPv6), Scheduler: "wlc", Prefix: 128}},
			},
			decode("service", attrService, func(b []byte) (any, error) { return decodeService(b) }),
		},
		"servers": {
			[]any{
				ServerEntry{Server: Server{Address: at("10.0.0.2:80"), Method: Tunnelling, Weight: 1, Tunnel: Tunnel{Type: GUE, Port: 5555, Flags: RemoteChecksum}}},
				ServerEntry{Server: Server{Address: at("10.0.0.1:8080"), Weight: 5, Upper: 100, Lower: 20}},
			},
			decode("server", attrServer, server(IPv4)),
		},
		"servers of IPv6": {
			[]any{ServerEntry{Server: Server{Address: at("[2001:db8:1::1]:2905"), Method: DR}}},
			decode("server6", attrServer, server(IPv6)),
		},
		"sync daemons": {
			[]any{
				SyncDaemon{Role: Master, Interface: "sync0", ID: 7, MaxLength: 1472, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1},
				SyncDaemon{Role: Backup, Interface: "sync0", ID: 255, MaxLength: 1200, Group: netip.MustParseAddr("ff02::81"), Port: 9000, TTL: 3},
			},
			decode("daemon", attrDaemon, func(b []byte) (any, error) { return decodeDaemon(b) }),
		},
	} {
		if diff := cmp.Diff(c.want, c.got, compareAddresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// attr, u8 to u64, and nest write attributes as the kernel's headers have them,
// independently of encode.go.
func attr(number uint16, content ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(content)))
	b = binary.NativeEndian.AppendUint16(b, number)
	b = append(b, content...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u16(number, v uint16) []byte {
	return attr(number, binary.NativeEndian.AppendUint16(nil, v)...)
}

func u32(number uint16, v uint32) []byte {
	return attr(number, binary.NativeEndian.AppendUint32(nil, v)...)
}

func u64(number uint16, v uint64) []byte {
	return attr(number, binary.NativeEndian.AppendUint64(nil, v)...)
}

func text(number uint16, s string) []byte { return attr(number, append([]byte(s), 0)...) }

func nest(number uint16, inner ...[]byte) []byte {
	return attr(number|1<<15, concat(inner...)...) // NLA_F_NESTED
}

func concat(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestDecodeCounters(t *testing.T) {
	// In the order of Counters and Rates, whatever the order on the wire.
	want := Stats{
		Counters: Counters{Connections: 1 << 40, InPackets: 2 << 40, OutPackets: 3 << 40, InBytes: 4 << 40, OutBytes: 5 << 40},
		Rates:    Counters{Connections: 6 << 40, InPackets: 7 << 40, OutPackets: 8 << 40, InBytes: 9 << 40, OutBytes: 10 << 40},
	}
	var wide [][]byte
	for i := uint16(10); i > 0; i-- {
		wide = append(wide, attr(11), u64(i, uint64(i)<<40)) // 11 is padding
	}
	narrow := concat(u32(1, 1), u32(2, 2), u32(3, 3), u64(4, 4<<40), u64(5, 5<<40), u32(6, 6), u32(7, 7), u32(8, 8), u32(9, 9), u32(10, 10))
	for name, c := range map[string]struct {
		stats, stats64 []byte
		want           Stats
	}{
		"64 bits": {narrow, concat(wide...), want},
		"32 bits": {narrow, nil, Stats{
			Counters: Counters{Connections: 1, InPackets: 2, OutPackets: 3, InBytes: 4 << 40, OutBytes: 5 << 40},
			Rates:    Counters{Connections: 6, InPackets: 7, OutPackets: 8, InBytes: 9, OutBytes: 10},
		}},
		"none": {nil, nil, Stats{}},
	} {
		got, err := decodeStats(c.stats, c.stats64)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	if _, err := decodeStats(nil, u32(statsConnections, 1)); err == nil {
		t.Error("a counter of 32 bits among those of 64 is taken")
	}
}

// TestRequests: what goes over the wire, octet by octet.
func TestRequests(t *testing.T) {
	const do, get, dump = netlink.Request | netlink.Acknowledge, netlink.Request, netlink.Request | netlink.Dump
	ctx := context.Background()
	webID := concat(u16(1, 2), u16(2, 6), attr(3, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), attr(4, 0, 80))
	markID := concat(u16(1, 10), u32(5, 7))
	flags := func(f uint32) []byte {
		return attr(7, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, f), 0xffffffff)...)
	}
	serverID := concat(u16(11, 2), attr(1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), attr(2, 0x1f, 0x90))
	server := Server{Address: at("10.0.0.1:8080"), Method: Tunnelling, Weight: 5, Upper: 100, Lower: 20, Tunnel: Tunnel{Type: GUE, Port: 5555, Flags: RemoteChecksum}}
	serverBytes := concat(serverID, u32(3, 2), u32(4, 5), u32(5, 100), u32(6, 20), attr(13, 1), attr(14, 0x15, 0xb3), u16(15, 2))
	for _, c := range []struct {
		name    string
		call    func(*Genetlink) error
		command uint8
		flags   netlink.HeaderFlags
		want    []byte
	}{
		{"Info", func(g *Genetlink) error { _, err := g.Info(ctx); return err }, 15, get, nil},
		{"Services", func(g *Genetlink) error { _, err := g.Services(ctx); return err }, 4, dump, nil},
		{"Service", func(g *Genetlink) error { _, err := g.Service(ctx, web); return err }, 4, get, nest(1, webID)},
		{
			"NewService", func(g *Genetlink) error {
				return g.NewService(ctx, Service{ServiceID: web, Scheduler: "wlc", Prefix: 20, Flags: FlagPersistent, Timeout: 90 * time.Second, Engine: "sip"})
			}, 1, do,
			nest(1, webID, text(6, "wlc"), text(11, "sip"), flags(1), u32(8, 90), attr(9, 255, 255, 240, 0)),
		},
		{
			"SetService", func(g *Genetlink) error {
				return g.SetService(ctx, Service{ServiceID: MarkID(7, IPv6), Scheduler: "sh", Prefix: 64, Flags: FlagScheduler1})
			}, 2, do,
			nest(1, markID, text(6, "sh"), flags(8), u32(8, 0), u32(9, 64)),
		},
		{
			"NewService with an odd mask", func(g *Genetlink) error {
				return g.NewService(ctx, Service{ServiceID: web, Scheduler: "rr", OddMask: netip.MustParseAddr("255.0.255.0")})
			}, 1, do,
			nest(1, webID, text(6, "rr"), flags(0), u32(8, 0), attr(9, 255, 0, 255, 0)),
		},
		{"DeleteService", func(g *Genetlink) error { return g.DeleteService(ctx, MarkID(7, IPv6)) }, 3, do, nest(1, markID)},
		{"NewServer", func(g *Genetlink) error { return g.NewServer(ctx, web, server) }, 5, do, concat(nest(1, webID), nest(2, serverBytes))},
		{"SetServer", func(g *Genetlink) error { return g.SetServer(ctx, web, server) }, 6, do, concat(nest(1, webID), nest(2, serverBytes))},
		{"DeleteServer", func(g *Genetlink) error { return g.DeleteServer(ctx, web, server.Address) }, 7, do, concat(nest(1, webID), nest(2, serverID))},
		{"Flush", func(g *Genetlink) error { return g.Flush(ctx) }, 17, do, nil},
		{"Zero", func(g *Genetlink) error { return g.Zero(ctx, ServiceID{}) }, 16, do, nil},
		{"Zero one", func(g *Genetlink) error { return g.Zero(ctx, web) }, 16, do, nest(1, webID)},
		{"Timeouts", func(g *Genetlink) error { _, err := g.Timeouts(ctx); return err }, 13, get, nil},
		{
			"SetTimeouts", func(g *Genetlink) error { return g.SetTimeouts(ctx, Timeouts{TCP: time.Second, UDP: time.Minute}) }, 12, do,
			concat(u32(4, 1), u32(5, 0), u32(6, 60)),
		},
		{"SyncDaemons", func(g *Genetlink) error { _, err := g.SyncDaemons(ctx); return err }, 11, dump, nil},
		{
			"StartSync", func(g *Genetlink) error {
				return g.StartSync(ctx, SyncDaemon{Role: Backup, Interface: "eth0", ID: 9, MaxLength: 1200, Group: netip.MustParseAddr("224.0.0.82"), Port: 9000, TTL: 2})
			}, 9, do,
			nest(3, u32(1, 2), text(2, "eth0"), u32(3, 9), u16(4, 1200), attr(5, 224, 0, 0, 82), u16(7, 9000), attr(8, 2)),
		},
		{
			"StartSync with defaults", func(g *Genetlink) error { return g.StartSync(ctx, SyncDaemon{Role: Master, Interface: "eth0"}) }, 9, do,
			nest(3, u32(1, 1), text(2, "eth0"), u32(3, 0)),
		},
		{"StopSync", func(g *Genetlink) error { return g.StopSync(ctx, Backup) }, 10, do, nest(3, u32(1, 2))},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			g := fake(t, func(m genetlink.Message, n netlink.Message) ([]genetlink.Message, error) {
				if asked++; asked > 1 {
					return nil, nil
				}
				if m.Header != (genetlink.Header{Command: c.command, Version: 1}) || n.Header.Flags != c.flags || n.Header.Type != testFamily {
					t.Errorf("header %+v of %+v, want command %d with flags %s", m.Header, n.Header, c.command, c.flags)
				}
				if diff := cmp.Diff(hex.Dump(c.want), hex.Dump(m.Data)); diff != "" {
					t.Errorf("attributes (-want +got):\n%s", diff)
				}
				if c.flags != do {
					return nil, genltest.Error(1)
				}
				return []genetlink.Message{{Data: []byte{0, 0, 0, 0}}}, nil
			})
			err := c.call(g)
			if wantErr := c.flags != do; wantErr != (err != nil) || asked != 1 {
				t.Errorf("%v after %d requests", err, asked)
			}
		})
	}
}

func TestBadAnswers(t *testing.T) {
	skipBigEndian(t)
	for want, b := range map[string][]byte{
		"flags of 3 octets":              concat(u16(1, 2), attr(7, 1, 2, 3)),
		"mask of 5 octets":               concat(u16(1, 2), attr(9, 1, 2, 3, 4, 5)),
		"port of 1 octets":               concat(u16(1, 2), attr(4, 1)),
		"address family 0":               u16(2, 6),
		"address family 7":               u16(1, 7),
		"address of 0 octets":            u16(1, 2),
		"address of 4 octets":            concat(u16(1, 10), attr(3, 1, 2, 3, 4)),
		"attribute 1 is not a uint16":    attr(1, 1),
		"attribute 5 is not a uint32":    attr(5, 1),
		"invalid attribute; length too ": {200, 0, 1, 0, 1},
		"the counters of service":        concat(u16(1, 2), u16(2, 6), attr(3, 1, 2, 3, 4), attr(4, 0, 80), attr(12, 9, 0, 1, 0)),
	} {
		if _, err := decodeService(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("service % x: %v, want %q in the error", b, err, want)
		}
	}
	for want, b := range map[string][]byte{
		"address of 3 octets":          attr(1, 1, 2, 3),
		"port of 3 octets":             concat(attr(1, 1, 2, 3, 4), attr(2, 1, 2, 3)),
		"port of 0 octets":             concat(attr(1, 1, 2, 3, 4), attr(14)),
		"attribute 13 is not a uint8":  attr(13),
		"attribute 15 is not a uint16": attr(15, 1),
		"the counters of server":       concat(attr(1, 1, 2, 3, 4), attr(12, 9, 0, 1, 0)),
	} {
		if _, err := decodeServer(b, IPv4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("server % x: %v, want %q in the error", b, err, want)
		}
	}
	if _, err := decodeDaemon(attr(5, 1, 2, 3)); err == nil || !strings.Contains(err.Error(), "group of 3 octets") {
		t.Errorf("sync daemon: %v", err)
	}
}

// FuzzDecode: whatever the kernel's answer, decoding does not panic, and what it
// takes for a service is encoded and decoded to the same.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"info", "config", "service", "daemon", "server", "server6"} {
		for _, b := range recorded(f, name, 0) {
			f.Add(b)
			if content, err := only(b, 1); err == nil {
				f.Add(content)
			}
			if content, err := only(b, 2); err == nil {
				f.Add(content)
			}
			if content, err := only(b, 3); err == nil {
				f.Add(content)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, attribute := range []uint16{attrService, attrServer, attrDaemon} {
			_, _ = only(b, attribute) // must return
		}
		_, _ = decodeInfo(b)
		_, _ = decodeTimeouts(b)
		if d, err := decodeDaemon(b); err == nil && d.problem() == "" {
			again, err := decodeDaemon(encoded(t, func(e *netlink.AttributeEncoder) { encodeDaemon(e, d) }))
			if err != nil || again != d {
				t.Errorf("%+v becomes %+v, %v", d, again, err)
			}
		}
		if s, err := decodeService(b); err == nil && s.problem() == "" {
			again, err := decodeService(encoded(t, func(e *netlink.AttributeEncoder) { encodeService(e, s.Service) }))
			if err != nil || again.Service != s.Service {
				t.Errorf("%+v becomes %+v, %v", s.Service, again.Service, err)
			}
		}
		for _, family := range []Family{IPv4, IPv6} {
			if s, err := decodeServer(b, family); err == nil {
				again, err := decodeServer(encoded(t, func(e *netlink.AttributeEncoder) { encodeServer(e, s.Server) }), family)
				if err != nil || again.Server != s.Server {
					t.Errorf("%+v becomes %+v, %v", s.Server, again.Server, err)
				}
			}
		}
	})
}

func encoded(t *testing.T, encode func(*netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	encode(e)
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
