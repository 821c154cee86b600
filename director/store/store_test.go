package store

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

var equalState = cmp.Options{
	cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var want []director.Revision
	for n := uint64(1); n <= 200; n++ {
		s, err := Open(context.Background(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		key := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(n%7+1))}
		head, _, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		state := head.State
		if i := state.Service(key); i >= 0 {
			state.Services[i].Servers = append(state.Services[i].Servers, realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: uint32(n)})
		} else {
			state.Services = append(state.Services, director.Service{Key: key})
		}
		r := director.Revision{RevisionInfo: director.RevisionInfo{Number: n, Time: time.Unix(int64(n), 5).UTC(), Who: "me"}, State: state.Normalize()}
		if err := s.Append(r); err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(context.Background(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, w := range want {
		got, err := s.Revision(w.Number)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(w, got, equalState); d != "" {
			t.Fatalf("revision %d (-want +got)\n%s", w.Number, d)
		}
	}
}
