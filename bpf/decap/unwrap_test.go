package decap_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/bpf/decap"
)

// everyWay calls f with each outer and inner family, tunnel and number of tags.
func everyWay(f func(name string, out, in family, w tunnel, tags []uint16)) {
	for _, out := range families {
		for _, in := range families {
			for i, w := range tunnels {
				for _, tags := range [][]uint16{nil, {100}, {100, 7}} {
					f(fmt.Sprintf("%s_in_%s/%s%d/%d_tags", in.name, out.name, w, i, len(tags)), out, in, w, tags)
				}
			}
		}
	}
}

// TestUnwrap: every tunnel in every combination of families, with tags: the packet
// that is left is the client's, its time to live and DSCP included.
func TestUnwrap(t *testing.T) {
	p := load(t, config())
	everyWay(func(name string, out, in family, w tunnel, tags []uint16) {
		inner := request(in, func(p *bpftest.Packet) { p.TOS, p.TTL = 0x28, 7 })
		o := out.outer()
		o.tos = 0xb8
		kind, _, _ := bytes.Cut([]byte(w.String()), []byte("-"))
		want := slices.Concat(framing(tags, in == v6), inner)
		if err := bpftest.Verify(want); err != nil {
			t.Fatal(err)
		}
		if err := p.check(wrapped(tags, o, w, inner), want, string(kind)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
}

// TestUnwrap_outer_headers: options, extension headers and padding go with the outer header.
func TestUnwrap_outer_headers(t *testing.T) {
	p := load(t, config())
	extensions := func(headers ...uint8) (all []bpftest.Extension) {
		for _, h := range headers {
			all = append(all, bpftest.Extension{Header: h, Length: 16})
		}
		return all
	}
	for _, test := range []struct {
		name   string
		out    family
		change func(*outer)
		pad    int
	}{
		{"IPv4 options", v4, func(o *outer) { o.options = 8 }, 0},
		{"all IPv4 options there can be", v4, func(o *outer) { o.options = 40 }, 0},
		{"IPv4 with DF", v4, func(o *outer) { o.fragment = 0x4000 }, 0},
		{"destination options, as Linux's tunnels have", v6, func(o *outer) { o.extensions = extensions(60) }, 0},
		{"four extension headers", v6, func(o *outer) { o.extensions = extensions(0, 60, 43, 60) }, 0},
		{"padding", v4, func(*outer) {}, 13},
		{"padding", v6, func(*outer) {}, 1},
	} {
		for _, w := range tunnels {
			for _, in := range families {
				o := test.out.outer()
				test.change(&o)
				for i, e := range o.extensions {
					if e.Header == 43 {
						o.extensions[i].Length = 24 // segments left is octet 3, which is 0
					}
				}
				frame := append(wrapped(nil, o, w, request(in)), make([]byte, test.pad)...)
				result, events := p.run(frame)
				if want := append(framing(nil, in == v6), request(in)...); !bytes.Equal(result.Packet, want) {
					t.Errorf("%s, %s in %s, %v: %v, counted%s:\n%x\nwant\n%x", test.name, in.name, test.out.name, w, result.Action, events, result.Packet, want)
				}
			}
		}
	}
}

// TestUnwrap_lengths: every length up to beyond what the checksums are summed by at
// a time, and large packets, which come in fragments of memory.
func TestUnwrap_lengths(t *testing.T) {
	p := load(t, config())
	var lengths []int
	for n := range 12 {
		lengths = append(lengths, n, 440+n, 1440+n)
	}
	for n := range 530 {
		lengths = append(lengths, n)
	}
	lengths = append(lengths, 8192, 8900, 20001)
	for _, length := range lengths {
		for i, w := range tunnels {
			if length < 1000 && length > 11 && i != length%len(tunnels) {
				continue
			}
			inner := request(v4, func(p *bpftest.Packet) { p.Protocol, p.Payload = bpftest.UDP, pattern(length) })
			frame := wrapped(nil, v4.outer(), w, inner)
			result, events := p.run(frame)
			if want := append(framing(nil, false), inner...); !bytes.Equal(result.Packet, want) {
				t.Errorf("%d octets, %v: %v, counted%s", length, w, result.Action, events)
			}
		}
	}
}

func pattern(n int) []byte {
	all := make([]byte, n)
	for i := range all {
		all[i] = byte(i*7 + i>>8)
	}
	return all
}

// TestECN holds the whole of RFC 6040's figure 4 against every pair of codepoints and families.
func TestECN(t *testing.T) {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	const drop = 4
	// By inner and outer codepoint.
	figure := [4][4]int{
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: drop},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}
	odd := map[[2]int]bool{{notECT, ect0}: true, {notECT, ect1}: true, {ect1, ect0}: true, {ce, ect1}: true}
	p := load(t, config())
	for _, out := range families {
		for _, in := range families {
			for inside, row := range figure {
				for outside, becomes := range row {
					o := out.outer()
					o.tos = 0xb8 | uint8(outside)
					as := func(codepoint int) []byte {
						return request(in, func(p *bpftest.Packet) { p.TOS = 0x28 | uint8(codepoint) })
					}
					var want []byte
					event := "ecn"
					if becomes != drop {
						want, event = append(framing(nil, in == v6), as(becomes)...), "ipip"
						if outside == ce && inside != ce {
							event += " congestion"
						}
						if odd[[2]int{inside, outside}] {
							event += " odd-ecn"
						}
					}
					if err := p.check(wrapped(nil, o, tunnel{}, as(inside)), want, event); err != nil {
						t.Errorf("%s in %s, inside %d, outside %d: %v", in.name, out.name, inside, outside, err)
					}
				}
			}
		}
	}
}

// TestUnwrap_whatever_is_inside: ICMP, errors and fragments to the virtual address are taken out as well.
func TestUnwrap_whatever_is_inside(t *testing.T) {
	p := load(t, config())
	for _, f := range families {
		echo := request(f)
		if f == v4 {
			echo[9] = 1
		} else {
			echo[6] = 58
		}
		fragment := request(f)
		if f == v4 {
			binary.BigEndian.PutUint16(fragment[6:], 0x2005)
		} else {
			fragment[6] = 44
		}
		for name, inner := range map[string][]byte{"icmp": echo, "fragment": fragment} {
			if f == v4 {
				binary.BigEndian.PutUint16(inner[10:], 0)
				binary.BigEndian.PutUint16(inner[10:], ^onesSum(inner[:20]))
			}
			for _, w := range tunnels {
				result, events := p.run(wrapped(nil, f.outer(), w, inner))
				if want := append(framing(nil, f == v6), inner...); !bytes.Equal(result.Packet, want) {
					t.Errorf("%s, %s, %v: %v, counted%s", name, f.name, w, result.Action, events)
				}
			}
		}
	}
}

// TestUnwrap_from_anywhere: without sources, all are let in.
func TestUnwrap_from_anywhere(t *testing.T) {
	c := config()
	c.From, c.Types, c.Ports = nil, []decap.Type{decap.GRE}, nil
	p := load(t, c)
	for _, f := range families {
		o := f.outer()
		o.from = f.otherDirector
		frame := wrapped(nil, o, tunnel{kind: decap.GRE}, request(f))
		if err := p.check(frame, append(framing(nil, f == v6), request(f)...), "gre"); err != nil {
			t.Error(err)
		}
		for _, kind := range []decap.Type{decap.IPIP, decap.GUE} {
			frame := wrapped(nil, o, tunnel{kind: kind}, request(f))
			if err := p.check(frame, frame, "other"); err != nil {
				t.Errorf("of type %d, which is not asked for: %v", kind, err)
			}
		}
	}
}
