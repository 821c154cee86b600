package decap_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/bpf/decap"
)

// frames is what a row of TestPass has in each family.
type frames func(f family) []byte

// TestPass: what is not for this host, not from a director, not for a virtual
// address or not understood stays as it is, and is counted by name.
func TestPass(t *testing.T) {
	p := load(t, config())
	outerIs := func(w tunnel, change func(*outer, family)) frames {
		return func(f family) []byte {
			o := f.outer()
			change(&o, f)
			return wrapped(nil, o, w, request(f))
		}
	}
	tunnelIs := func(w tunnel) frames { return outerIs(w, func(*outer, family) {}) }
	innerIs := func(change func([]byte) []byte) frames {
		return func(f family) []byte {
			o := f.outer()
			if o.next = 4; f == v6 {
				o.next = 41
			}
			return wrapped([]uint16{5}, o, tunnel{}, change(request(f)))
		}
	}
	extended := func(headers ...uint8) frames {
		return outerIs(tunnel{}, func(o *outer, f family) {
			*o = v6.outer()
			for _, h := range headers {
				o.extensions = append(o.extensions, bpftest.Extension{Header: h, Length: 8})
			}
		})
	}
	for _, test := range []struct {
		name, event string
		frame       frames
	}{
		{"a client's own packet", "other", func(f family) []byte { return append(framing(nil, f == v6), request(f)...) }},
		{"udp to another port", "other", tunnelIs(tunnel{kind: decap.GUE, port: 6081})},
		{"a protocol that is no tunnel", "other", outerIs(tunnel{}, func(o *outer, _ family) { o.next = 50 })},
		{"neither IPv4 nor IPv6", "other", func(f family) []byte {
			frame := wrapped(nil, f.outer(), tunnel{}, request(f))
			frame[12], frame[13] = 0x88, 0x48
			return frame
		}},
		{"three tags", "other", func(f family) []byte {
			frame := wrapped([]uint16{1, 2}, f.outer(), tunnel{}, request(f))
			return slices.Insert(frame, 12, 0x88, 0xa8, 0, 9)
		}},
		{"to a group's link address", "other", func(f family) []byte {
			frame := wrapped(nil, f.outer(), tunnel{}, request(f))
			frame[0] |= 1
			return frame
		}},
		{"to another host", "address", outerIs(tunnel{}, func(o *outer, f family) { o.to = f.other })},
		{"to another host, by gre", "address", outerIs(tunnel{kind: decap.GRE}, func(o *outer, f family) { o.to = f.other })},
		{"to another host, by gue", "address", outerIs(tunnel{kind: decap.GUE}, func(o *outer, f family) { o.to = f.other })},
		{"to the virtual address outside", "address", outerIs(tunnel{}, func(o *outer, f family) { o.to = f.virtual.Addr() })},
		{"from another source", "source", outerIs(tunnel{}, func(o *outer, f family) { o.from = f.otherDirector })},
		{"from another source, with a wrong checksum", "source", func(f family) []byte {
			o := f.outer()
			o.from = f.otherDirector
			return damage(wrapped(nil, o, tunnel{kind: decap.GUE, checksum: true}, request(f)))
		}},
		{"for another address inside", "not-virtual", func(f family) []byte {
			return wrapped(nil, f.outer(), tunnel{}, request(f, func(p *bpftest.Packet) { p.To = toOther(f) }))
		}},
		{"for another address inside, with a wrong checksum", "not-virtual", func(f family) []byte {
			inner := request(f, func(p *bpftest.Packet) { p.To = toOther(f) })
			return damage(wrapped(nil, f.outer(), tunnel{kind: decap.GRE, checksum: true}, inner))
		}},
		{"for this host inside", "not-virtual", func(f family) []byte {
			return wrapped(nil, f.outer(), tunnel{}, request(f, func(p *bpftest.Packet) { p.To = toServer(f) }))
		}},

		{"gre with a key", "options", tunnelIs(tunnel{kind: decap.GRE, greFlags: 0x2000})},
		{"gre with a sequence number", "options", tunnelIs(tunnel{kind: decap.GRE, greFlags: 0x1000})},
		{"gre with a route", "options", tunnelIs(tunnel{kind: decap.GRE, greFlags: 0x4000})},
		{"gre of version 1", "options", tunnelIs(tunnel{kind: decap.GRE, greFlags: 1})},
		{"gre with a checksum and a key", "options", tunnelIs(tunnel{kind: decap.GRE, greFlags: 0xa000})},
		{"gre with Ethernet inside", "protocol", tunnelIs(tunnel{kind: decap.GRE, greType: 0x6558})},
		{"a control message of gue", "options", tunnelIs(tunnel{kind: decap.GUE, first: 0x20})},
		{"gue of variant 2", "options", tunnelIs(tunnel{kind: decap.GUE, first: 0x80})},
		{"gue of variant 3", "options", tunnelIs(tunnel{kind: decap.GUE, first: 0xc0})},
		{"gue with an unknown flag", "options", tunnelIs(tunnel{kind: decap.GUE, flags: 0x8000, optional: make([]byte, 4)})},
		{"gue with an unknown private flag", "options", tunnelIs(tunnel{kind: decap.GUE, flags: 1, optional: []byte{0, 0, 0, 1}})},
		{"gue with a remote checksum", "remote-checksum", tunnelIs(tunnel{kind: decap.GUE, flags: 1, optional: []byte{0x80, 0, 0, 0, 0, 40, 0, 56}})},
		{"gue with a private flag and no room for it", "malformed", tunnelIs(tunnel{kind: decap.GUE, flags: 1})},
		{"gue with TCP inside", "protocol", tunnelIs(tunnel{kind: decap.GUE, protocol: 6})},
		{"gue's variant 1 of IP version 5", "options", func(f family) []byte {
			frame := wrapped(nil, f.outer(), tunnel{kind: decap.GUE, direct: true}, request(f))
			frame[len(frame)-len(request(f))] = 0x55
			return frame
		}},

		{"a first fragment", "fragment", outerIs(tunnel{}, func(o *outer, _ family) { *o = v4.outer(); o.fragment = 0x2000 })},
		{"a later fragment", "fragment", outerIs(tunnel{kind: decap.GRE}, func(o *outer, _ family) { *o = v4.outer(); o.fragment = 100 })},
		{"a first fragment of gue", "fragment", outerIs(tunnel{kind: decap.GUE}, func(o *outer, _ family) { *o = v4.outer(); o.fragment = 0x2000 })},
		{"a later fragment of UDP", "other", outerIs(tunnel{kind: decap.GUE}, func(o *outer, _ family) { *o = v4.outer(); o.fragment = 100 })},
		{"an IPv6 first fragment", "fragment", func(family) []byte {
			o := v6.outer()
			o.extensions, o.fragment = []bpftest.Extension{{Header: 60, Length: 8}, {Header: 44, Length: 8}}, 1
			return wrapped(nil, o, tunnel{}, request(v6))
		}},
		{"an IPv6 later fragment", "fragment", func(family) []byte {
			o := v6.outer()
			o.extensions, o.fragment = []bpftest.Extension{{Header: 44, Length: 8}}, 0x100
			return wrapped(nil, o, tunnel{kind: decap.GRE}, request(v6))
		}},
		{"five extension headers", "extensions", extended(0, 60, 60, 60, 60)},
		{"a route that has not ended", "other", func(family) []byte {
			o := v6.outer()
			o.extensions = []bpftest.Extension{{Header: 43, Length: 24}}
			frame := wrapped(nil, o, tunnel{}, request(v6))
			frame[14+40+3] = 1
			return frame
		}},

		{"an inner packet of another version", "inner", innerIs(func(in []byte) []byte { in[0] ^= 0x20; return in })},
		{"an inner packet without a whole header", "inner", innerIs(func(in []byte) []byte { return in[:19] })},
		{"nothing inside", "inner", innerIs(func([]byte) []byte { return nil })},
	} {
		for _, f := range families {
			frame := test.frame(f)
			if err := p.check(frame, frame, test.event); err != nil {
				t.Errorf("%s, %s: %v", test.name, f.name, err)
			}
		}
	}
}

// TestPass_malformed: outer lengths that contradict each other or the frame.
func TestPass_malformed(t *testing.T) {
	p := load(t, config())
	put := func(at int, value uint16) func([]byte) []byte {
		return func(frame []byte) []byte {
			binary.BigEndian.PutUint16(frame[14+at:], value)
			return frame
		}
	}
	for _, test := range []struct {
		name   string
		f      family
		w      tunnel
		change func([]byte) []byte
	}{
		{"the frame ends early", v4, tunnel{}, func(b []byte) []byte { return b[:len(b)-1] }},
		{"the frame ends early", v6, tunnel{}, func(b []byte) []byte { return b[:len(b)-1] }},
		{"the frame ends in the header", v4, tunnel{}, func(b []byte) []byte { return b[:14+19] }},
		{"the frame ends in the header", v6, tunnel{}, func(b []byte) []byte { return b[:14+39] }},
		{"a length of less than the header", v4, tunnel{}, put(2, 19)},
		{"version 5", v4, tunnel{}, func(b []byte) []byte { b[14] = 0x55; return b }},
		{"a header of four words", v4, tunnel{}, func(b []byte) []byte { b[14] = 0x44; return b }},
		{"version 7", v6, tunnel{}, func(b []byte) []byte { b[14] = 0x70; return b }},
		{"gre cut off", v4, tunnel{kind: decap.GRE}, put(2, 20+3)},
		{"gue without a UDP header", v4, tunnel{kind: decap.GUE}, put(2, 20+7)},
		{"UDP longer than the packet", v4, tunnel{kind: decap.GUE}, put(20+4, 2000)},
		{"UDP shorter than its header", v4, tunnel{kind: decap.GUE}, put(20+4, 7)},
		{"UDP without gue", v6, tunnel{kind: decap.GUE}, put(40+4, 8)},
		{"an extension header that is not there", v6, tunnel{}, func(b []byte) []byte {
			b[14+6] = 60
			return append(b[:14+4], append([]byte{0, 4, 60, 64}, b[14+8:14+44]...)...)
		}},
	} {
		frame := test.change(wrapped(nil, test.f.outer(), test.w, request(test.f)))
		if err := p.check(frame, frame, "malformed"); err != nil {
			t.Errorf("%s, %s: %v", test.name, test.f.name, err)
		}
	}
}

// TestDrop: what is for a virtual address but not whole ends here, by name.
func TestDrop(t *testing.T) {
	p := load(t, config())
	for _, f := range families {
		inner := func(change func([]byte)) []byte {
			packet := request(f)
			change(packet)
			return packet
		}
		longer := inner(func(b []byte) {
			if f == v4 {
				binary.BigEndian.PutUint16(b[2:], uint16(len(b)+1))
			} else {
				binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40+1))
			}
		})
		for name, row := range map[string]struct {
			frame []byte
			event string
		}{
			"a wrong gue checksum":           {damage(wrapped(nil, f.outer(), tunnel{kind: decap.GUE, checksum: true}, request(f))), "gue-checksum"},
			"a wrong gue checksum, directly": {damage(wrapped([]uint16{3}, f.outer(), tunnel{kind: decap.GUE, checksum: true, direct: true}, request(f))), "gue-checksum"},
			"a wrong gre checksum":           {damage(wrapped(nil, f.outer(), tunnel{kind: decap.GRE, checksum: true}, request(f))), "gre-checksum"},
			"longer than its tunnel":         {wrapped(nil, f.outer(), tunnel{}, longer), "inner-length"},
			"longer, of padding":             {append(wrapped(nil, f.outer(), tunnel{kind: decap.GRE}, longer), 0, 0), "inner-length"},
		} {
			if err := p.check(row.frame, nil, row.event); err != nil {
				t.Errorf("%s, %s: %v", name, f.name, err)
			}
		}
	}
	for name, change := range map[string]func([]byte){
		"an inner header of four words":                func(b []byte) { b[0] = 0x44 },
		"an inner length of less than the header":      func(b []byte) { b[2], b[3] = 0, 19 },
		"an inner header longer than the inner packet": func(b []byte) { b[0], b[2], b[3] = 0x46, 0, 23 },
	} {
		inner := request(v4)
		change(inner)
		if err := p.check(wrapped(nil, v6.outer(), tunnel{}, inner), nil, "inner-length"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, options := range []int{0, 12} {
		o := v4.outer()
		o.options = options
		frame := wrapped(nil, o, tunnel{}, request(v6))
		frame[14+8]-- // its time to live, without the checksum
		if err := p.check(frame, nil, "outer-checksum"); err != nil {
			t.Errorf("%d octets of options: %v", options, err)
		}
	}
}

// damage flips a bit of the last octet, which only checksums tell.
func damage(frame []byte) []byte {
	frame[len(frame)-1] ^= 4
	return frame
}
