package director_test

import (
	"errors"
	"regexp"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// A resize is an event, and one that fails or cannot be is none.
func TestResizeIsTold(t *testing.T) {
	r := start(t, web())
	r.fake.SetStats(director.Stats{Table: []director.TableStats{{Family: "ipv4", Limit: 1024}, {Family: "ipv6", Limit: 256}}})
	r.fake.SetConnections(conntrack.Connection{}, conntrack.Connection{})
	r.news()
	if _, err := r.Resize(t.Context(), 1, 0); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("a table that is too small: %v", err)
	}
	want(t, "events of a failure", nil, r.news())
	for _, tt := range []struct {
		v4, v6 uint64
		want   string
	}{
		{4096, 0, "table-resized: the connection tables were resized, IPv4 for 4096 connections in "},
		{8192, 512, "table-resized: the connection tables were resized, IPv4 for 8192 connections, IPv6 for 512 connections in "},
	} {
		if _, err := r.Resize(t.Context(), tt.v4, tt.v6); err != nil {
			t.Fatal(err)
		}
		got := r.news()
		if len(got) != 1 || !regexp.MustCompile("^"+regexp.QuoteMeta(tt.want)+`[0-9.]+(µs|ms|s)$`).MatchString(got[0]) {
			t.Errorf("events %q, want %s…", got, tt.want)
		}
	}
	lossy := director.ResizeReport{Carried: 7, Expired: 1, Lost: 2, Evicted: 3}
	r.fake.SetResized(lossy)
	report, err := r.Resize(t.Context(), 4096, 0)
	if err != nil || report != lossy {
		t.Errorf("%+v, %v", report, err)
	}
	const lost = "connections-lost: 2 connections, templates included, found no room in the resized tables and are lost; 7 came over"
	if got := r.news(); len(got) != 2 || got[1] != lost {
		t.Errorf("events %q, the second %q wanted", got, lost)
	}
}
