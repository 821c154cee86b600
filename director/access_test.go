package director_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
)

func TestAccessNormalize(t *testing.T) {
	in := director.Access{
		Allow: prefixes("192.0.2.77/24", "10.0.0.0/16", "10.0.0.0/8", "192.0.2.0/24"),
		Deny:  prefixes(),
	}
	before := in.Clone()
	got := in.Normalize()
	if diff := cmp.Diff(director.Access{Allow: prefixes("10.0.0.0/8", "10.0.0.0/16", "192.0.2.0/24")}, got, cmpNetip); diff != "" {
		t.Errorf("normalized (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, in, cmpNetip); diff != "" {
		t.Errorf("the argument changed (-before +after):\n%s", diff)
	}
	if !got.Equal(got.Normalize()) || got.Equal(director.Access{Deny: got.Allow}) || got.Equal(director.Access{}) {
		t.Error("equal is wrong")
	}
	empty := director.Access{Allow: []netip.Prefix{}}
	if !empty.IsZero() || !empty.Normalize().Equal(director.Access{}) || got.IsZero() {
		t.Error("an empty list is not as none")
	}
	service := web()
	service.Access = in
	if n := service.Normalize(); !n.Access.Equal(got) {
		t.Errorf("of a service: %v", n.Access)
	}
	clone := service.Clone()
	clone.Access.Allow[0] = netip.Prefix{}
	if diff := cmp.Diff(before, service.Access, cmpNetip); diff != "" {
		t.Errorf("the service changed through its copy (-before +after):\n%s", diff)
	}
}

func TestAccessAllows(t *testing.T) {
	none := director.Access{}
	office := director.Access{Allow: prefixes("10.0.0.0/8"), Deny: prefixes("10.1.0.0/16")}
	nested := director.Access{Allow: prefixes("10.1.2.0/24"), Deny: prefixes("10.1.0.0/16", "10.1.2.3/32")}
	shut := director.Access{Deny: prefixes("0.0.0.0/0")}
	v6 := director.Access{Allow: prefixes("2001:db8::/32"), Deny: prefixes("2001:db8:1::/48")}
	for _, tt := range []struct {
		name   string
		access director.Access
		client string
		want   bool
	}{
		{"no_list", none, "203.0.113.1", true},
		{"allowed", office, "10.2.0.1", true},
		{"not_allowed", office, "203.0.113.1", false},
		{"denied_within_allowed", office, "10.1.255.255", false},
		{"deny_alone_allows_others", director.Access{Deny: office.Deny}, "203.0.113.1", true},
		{"the_longest_decides", nested, "10.1.2.4", true},
		{"a_longer_one_decides", nested, "10.1.2.3", false},
		{"denied_by_the_shorter", nested, "10.1.3.1", false},
		{"all_denied", shut, "203.0.113.1", false},
		{"prefix_of_all_beats_the_default", director.Access{Allow: prefixes("10.0.0.0/8", "0.0.0.0/0")}, "203.0.113.1", true},
		{"v6_allowed", v6, "2001:db8:2::1", true},
		{"v6_denied", v6, "2001:db8:1::1", false},
		{"v6_not_allowed", v6, "2001:db9::1", false},
		{"other_family_is_in_no_prefix", v6, "10.0.0.1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.access.Allows(netip.MustParseAddr(tt.client)); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// genPrefix draws from a small space, so that prefixes nest and repeat.
func genPrefix() *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		addr := netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 1).Draw(t, "b")), byte(rapid.IntRange(0, 3).Draw(t, "c")), byte(rapid.IntRange(0, 3).Draw(t, "d"))})
		return netip.PrefixFrom(addr, rapid.SampledFrom([]int{0, 8, 15, 16, 22, 23, 24, 30, 31, 32}).Draw(t, "bits"))
	})
}

// The model looks bit by bit, the longest match first, as a trie would.
func TestAccessAllowsAsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		allow := rapid.SliceOfN(genPrefix(), 0, 5).Draw(t, "allow")
		deny := rapid.SliceOfN(genPrefix(), 0, 5).Draw(t, "deny")
		access := director.Access{Allow: allow, Deny: deny}.Normalize()
		service := web()
		service.Access = access
		if service.Validate() != nil {
			t.Skip("a prefix is both allowed and denied")
		}
		client := genPrefix().Draw(t, "client").Addr()
		number := func(a netip.Addr) uint32 {
			b := a.As4()
			return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		}
		model := func() bool {
			for bits := 32; bits >= 0; bits-- {
				mask := ^uint32(0) << (32 - bits) // 0 for bits 0
				for i, list := range [][]netip.Prefix{allow, deny} {
					for _, p := range list {
						if p.Bits() == bits && (number(p.Addr())^number(client))&mask == 0 {
							return i == 0
						}
					}
				}
			}
			return len(allow) == 0
		}
		if got, want := access.Allows(client), model(); got != want {
			t.Errorf("%s: %v, want %v", client, got, want)
		}
	})
}

func TestAccessValidate(t *testing.T) {
	const at = `service "web": `
	tests := []struct {
		name   string
		access director.Access
		want   []string
	}{
		{"none", director.Access{}, nil},
		{"both_lists", director.Access{Allow: prefixes("10.0.0.0/8"), Deny: prefixes("10.1.0.0/16")}, nil},
		{"all_of_the_family", director.Access{Deny: prefixes("0.0.0.0/0")}, nil},
		{"invalid", director.Access{Deny: []netip.Prefix{{}}}, []string{at + "a prefix is not valid"}},
		{"other_family", director.Access{Allow: prefixes("2001:db8::/32")}, []string{at + "2001:db8::/32 is not of the service's address family (192.0.2.1)"}},
		{"v4_in_v6", director.Access{Allow: prefixes("::ffff:10.0.0.0/104")}, []string{at + "::ffff:10.0.0.0/104 is an IPv4 address in IPv6 form: write it as IPv4"}},
		{"in_both", director.Access{Allow: prefixes("10.0.0.0/8", "192.0.2.0/24"), Deny: prefixes("10.0.0.77/8")}, []string{at + "10.0.0.0/8 is both allowed and denied"}},
		{"all_at_once", director.Access{Allow: []netip.Prefix{{}}, Deny: prefixes("2001:db8::/32")}, []string{
			at + "a prefix is not valid", at + "2001:db8::/32 is not of the service's address family (192.0.2.1)",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			service := web()
			service.Access = tt.access
			var got []string
			for _, p := range director.Problems(service.Normalize().Validate()) {
				if p.Field != "access" || !errors.Is(p, director.ErrInvalid) {
					t.Errorf("field %q, kind %v", p.Field, p.Kind)
				}
				got = append(got, p.Error())
			}
			want(t, "problems", tt.want, got)
		})
	}
	t.Run("too_many", func(t *testing.T) {
		service := web()
		for i := range director.MaxAccessPrefixes + 1 {
			service.Access.Allow = append(service.Access.Allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
		}
		service.Access.Deny, service.Access.Allow = service.Access.Allow[:1:1], service.Access.Allow[1:]
		err := service.Validate()
		if want := at + "4097 prefixes: a service has at most 4096"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		service.Access.Deny = nil
		if err := service.Validate(); err != nil {
			t.Errorf("one fewer: %v", err)
		}
	})
}
