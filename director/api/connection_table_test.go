package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// shownConnections have every field that a connection can have, each form of a
// duration, and what JSON must quote.
func shownConnections() []conntrack.Connection {
	address := netip.MustParseAddrPort
	one := conntrack.Connection{
		Protocol: conntrack.TCP, Client: address("198.51.100.7:40000"), Virtual: address("192.0.2.10:80"), Server: address("10.0.0.11:8080"),
		Method: "nat", State: conntrack.Established, Proven: true, UnderTemplate: true, Expires: 14*time.Minute + 59500*time.Millisecond,
		Age: 26*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond, Idle: 900*time.Millisecond + 999*time.Nanosecond,
		Traffic: &conntrack.Traffic{InPackets: 1, InBytes: 1 << 63, OutPackets: 3, OutBytes: 4},
	}
	six := conntrack.Connection{
		Protocol: conntrack.UDP, Client: address("[2001:db8:9::1]:5353"), Virtual: address("[2001:db8::10]:53"), Server: address("[2001:db8:1::1]:53"),
		Method: "dr", State: conntrack.UDPNormal, Expires: -61*time.Second - 250*time.Millisecond, Age: time.Minute, Idle: time.Hour + 10*time.Millisecond,
	}
	template := conntrack.Connection{
		Protocol: conntrack.UDP, Client: address("198.51.100.0:0"), Virtual: address("192.0.2.10:5060"), Server: address("10.0.0.11:5060"), Method: "tunnel",
		Engine: "sip", EngineData: "call\x1b[1m\"<é\u2028\xff", Template: true, Prefix: 24, Controlled: 65535, Expires: time.Millisecond,
	}
	mark := conntrack.Connection{
		Client: address("198.51.100.7:0"), Virtual: address("0.0.0.0:0"), Server: address("10.0.0.11:0"), Method: "nat",
		Mark: 7, Template: true, Prefix: 32, Expires: 999 * time.Microsecond,
	}
	sctp := one
	sctp.Protocol, sctp.State, sctp.Traffic = conntrack.SCTP, conntrack.SCTPEstablished, nil
	return []conntrack.Connection{one, six, template, mark, sctp}
}

// translatedConnections are by full NAT.
func translatedConnections() []conntrack.Connection {
	all := shownConnections()[:2]
	all[0].Method, all[0].Local = "fullnat", netip.MustParseAddrPort("10.0.0.2:40000")
	all[1].Method, all[1].Local = "fullnat", netip.MustParseAddrPort("[2001:db8:1::2]:65535")
	return all
}

// The lines of the list are what json.Marshal makes of the model, whose fields it
// has all.
func TestConnectionLines(t *testing.T) {
	for i, c := range slices.Concat(shownConnections(), translatedConnections(), []conntrack.Connection{{}}) {
		for _, timed := range []bool{false, true} {
			line, model := api.ConnectionForms(timed, c)
			want, err := json.Marshal(model)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(line)); diff != "" {
				t.Errorf("%d, timed %v (-want +got)\n%s", i, timed, diff)
			}
		}
	}
}

// A list has the same connections whatever it comes as, with and without a Table.
func TestConnectionForms(t *testing.T) {
	all := slices.Concat(shownConnections(), translatedConnections())
	all[2].EngineData = "call\x1b[1m" // of text, as all that is JSON
	fake := directortest.NewFake(director.State{})
	fake.SetConnections(all...)
	for name, test := range map[string]struct {
		dp    director.Dataplane
		query api.ConnectionQuery
		kind  string
	}{
		"records":          {fake, api.ConnectionQuery{}, "application/vnd.shunt.connections"},
		"lines":            {fake, api.ConnectionQuery{Limit: 100}, "application/x-ndjson"},
		"a_kernel_s_lines": {directortest.NoTable(fake), api.ConnectionQuery{}, "application/x-ndjson"},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, newHandler(t, test.dp))
			list, err := client.ListConnections(t.Context(), test.query)
			if err != nil {
				t.Fatal(err)
			}
			defer list.Close()
			if list.Type() != test.kind {
				t.Errorf("it is %q, want %q", list.Type(), test.kind)
			}
			var got []conntrack.Connection
			for c, err := range list.All() {
				if err != nil {
					t.Fatal(err)
				}
				one := *c
				if c.Traffic != nil {
					one.Traffic = new(*c.Traffic)
				}
				got = append(got, one)
			}
			want := make([]conntrack.Connection, len(all))
			for i, c := range all {
				if want[i] = c; name != "records" {
					for _, d := range []*time.Duration{&want[i].Expires, &want[i].Age, &want[i].Idle} {
						*d = d.Truncate(time.Millisecond)
					}
				}
				if strings.HasPrefix(name, "a_kernel") {
					want[i].Age, want[i].Idle = 0, 0
				}
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestListInParts: parts of a list have every connection once, and say where they end; on a
// data plane without places there is one part.
func TestListInParts(t *testing.T) {
	all := shownConnections()
	fake := directortest.NewFake(director.State{})
	fake.SetConnections(all...)
	client := serve(t, newHandler(t, fake))
	var got []string
	var parts []int
	query := api.ConnectionQuery{Limit: 2, Kind: "connection"}
	for {
		list, err := client.ListConnections(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for c, err := range list.Models() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, c.Protocol)
			n++
		}
		list.Close()
		parts = append(parts, n)
		if query.Cursor = list.Next(); query.Cursor == "" {
			break
		}
	}
	if !slices.Equal(parts, []int{2, 1}) || !slices.Equal(got, []string{"tcp", "udp", "sctp"}) {
		t.Errorf("parts of %v: %v", parts, got)
	}
	h := newHandler(t, directortest.NoTable(fake))
	if w := ask(h, "GET", "/v1/connections?limit=2", ""); strings.Count(w.Body.String(), "\n") != 2 || strings.Contains(w.Body.String(), "next") {
		t.Errorf("%s", w.Body)
	}
	if w := ask(h, "GET", "/v1/connections?cursor=2", ""); w.Code != http.StatusNotImplemented {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestRecords: dumps go to where they are loaded, and what is wrong with them is said.
func TestRecords(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	live := shownConnections()[0]
	expired := live
	expired.Client, expired.Expires = netip.MustParseAddrPort("198.51.100.8:1"), -1
	elsewhere := live
	elsewhere.Client, elsewhere.Server = netip.MustParseAddrPort("198.51.100.9:1"), netip.MustParseAddrPort("10.0.0.99:80")
	fake.SetConnections(live, expired, elsewhere)
	from := serve(t, newHandler(t, fake))
	var dump bytes.Buffer
	if err := from.DumpConnections(t.Context(), api.ConnectionQuery{}, &dump); err != nil {
		t.Fatal(err)
	}
	standby := directortest.NewFake(director.State{})
	to := serve(t, newHandler(t, standby))
	t.Run("are_loaded_once", func(t *testing.T) {
		for _, want := range []api.LoadReport{
			{Loaded: 1, Skipped: map[string]uint64{"expired": 1, "no-such-server": 1}},
			{Known: 1, Skipped: map[string]uint64{"expired": 1, "no-such-server": 1}},
		} {
			got, err := to.LoadConnections(t.Context(), bytes.NewReader(dump.Bytes()))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		}
	})
	t.Run("of_a_filter", func(t *testing.T) {
		var some bytes.Buffer
		if err := from.DumpConnections(t.Context(), api.ConnectionQuery{Client: "198.51.100.8"}, &some); err != nil || some.Len() >= dump.Len() {
			t.Errorf("%d bytes of %d, %v", some.Len(), dump.Len(), err)
		}
	})
	for name, test := range map[string]struct {
		body []byte
		want string
	}{
		"that_are_none":          {[]byte("{}{}{}{}{}{}{}{}{}{}{}"), "damaged"},
		"that_are_half":          {dump.Bytes()[:dump.Len()-1], "cut short"},
		"that_are_not_all":       {nil, "cut short"},
		"that_something_follows": {append(dump.Bytes()[:dump.Len():dump.Len()], dump.Bytes()...), "follows"},
		"that_were_changed":      {append(dump.Bytes()[:dump.Len()-1:dump.Len()-1], dump.Bytes()[dump.Len()-1]^1), "checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := to.LoadConnections(t.Context(), bytes.NewReader(test.body))
			text := report.Failure
			if err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, test.want) {
				t.Errorf("%+v, %v; want %q", report, err, test.want)
			}
		})
	}
	t.Run("that_break_off", func(t *testing.T) {
		many := make([]conntrack.Connection, 5000) // more than is held back
		for i := range many {
			many[i] = live
		}
		fake.SetConnections(many...)
		fake.FailTable(io.ErrClosedPipe)
		defer fake.FailTable(nil)
		err := from.DumpConnections(t.Context(), api.ConnectionQuery{}, io.Discard)
		if problem, ok := errors.AsType[*api.Problem](err); !ok || problem.Detail != io.ErrClosedPipe.Error() {
			t.Errorf("dump: %v", err)
		}
		var last error
		seen := 0
		for _, err := range from.Connections(t.Context(), api.ConnectionQuery{}) {
			if last = err; err == nil {
				seen++
			}
		}
		if problem, ok := errors.AsType[*api.Problem](last); !ok || problem.Detail != io.ErrClosedPipe.Error() || seen == 0 {
			t.Errorf("list: %d, then %v", seen, last)
		}
	})
	t.Run("that_fail_at_once", func(t *testing.T) {
		fake.SetConnections(live)
		fake.FailTable(io.ErrClosedPipe)
		defer fake.FailTable(nil)
		w := ask(newHandler(t, fake), "GET", "/v1/connections/dump", "")
		if w.Code != 500 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}

// TestWatchConnections: changes that match come as they are announced, and what was
// lost is said.
func TestWatchConnections(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	client := serve(t, newHandler(t, fake))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := shownConnections()[0]
	c.Traffic = nil
	other := c
	other.Client = netip.MustParseAddrPort("203.0.113.1:1")
	go func() { // until it is watched, and then more at once than are held
		for ctx.Err() == nil && fake.Announce(director.ConnectionChange{What: director.ConnectionClosed, Service: webKey, Connection: other}) == 0 {
			time.Sleep(time.Millisecond)
		}
		fake.Announce(director.ConnectionChange{What: director.ConnectionOpened, Service: webKey, Connection: c, Lost: 3})
		fake.Announce(director.ConnectionChange{What: director.ConnectionEstablished, Service: webKey, Connection: c})
	}()
	var got []string
	for change, err := range client.WatchConnections(ctx, api.ConnectionQuery{Client: "198.51.100.0/24"}) {
		if err != nil {
			t.Fatal(err)
		}
		if change.Service != webKey.String() || change.Connection.Client != c.Client.String() || change.Connection.Age == nil {
			t.Errorf("%+v", change)
		}
		if change.What == "opened" && change.Lost != 3 {
			t.Errorf("%d lost, want 3", change.Lost)
		}
		if got = append(got, change.What); len(got) == 2 {
			break
		}
	}
	if diff := cmp.Diff([]string{"opened", "established"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	t.Run("ends_with_the_reason", func(t *testing.T) {
		fake.FailTable(io.ErrClosedPipe)
		defer fake.FailTable(nil)
		for _, err := range client.WatchConnections(ctx, api.ConnectionQuery{}) {
			if problem, ok := errors.AsType[*api.Problem](err); !ok || problem.Detail != io.ErrClosedPipe.Error() {
				t.Errorf("%v", err)
			}
		}
	})
}

// TestTables: sizes, faults, resets and groups, through the client.
func TestTables(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	fake.SetStats(director.Stats{Table: []director.TableStats{{Family: "ipv4", Limit: 1024, Keys: 7}, {Family: "ipv6", Limit: 256, Keys: 2}}})
	all := shownConnections()
	fake.SetConnections(all...)
	client := serve(t, newHandler(t, fake))
	t.Run("resize", func(t *testing.T) {
		fake.SetResized(director.ResizeReport{Carried: 5, Expired: 4, Lost: 3, Evicted: 2})
		got, err := client.ResizeTables(t.Context(), api.TableSizes{IPv4: 4096})
		want := api.TablesResized{
			Before: api.TableSizes{IPv4: 1024, IPv6: 256}, After: api.TableSizes{IPv4: 4096, IPv6: 256}, Took: got.Took,
			Carried: 5, Expired: 4, Lost: 3, Evicted: 2,
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
		for _, sizes := range []api.TableSizes{{IPv4: 1023}, {IPv6: 1}, {IPv4: 1<<28 + 1}} { // no configuration has them
			_, err = client.ResizeTables(t.Context(), sizes)
			if problem, ok := errors.AsType[*api.Problem](err); !ok || problem.Status != http.StatusUnprocessableEntity {
				t.Errorf("%+v: %v", sizes, err)
			}
		}
	})
	t.Run("check", func(t *testing.T) {
		want := api.TableCheck{Faults: []api.TableFault{}, Keys: 9, Connections: uint64(len(all))}
		got, err := client.CheckConnections(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
		fake.SetFaults(director.TableFault{Kind: "reply-missing", What: "a", Found: "b"})
		want.Faults = []api.TableFault{{Kind: "reply-missing", What: "a", Found: "b"}}
		got, err = client.CheckConnections(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	})
	t.Run("groups", func(t *testing.T) {
		got, err := client.CountConnectionsBy(t.Context(), api.ConnectionQuery{Limit: 1}, "client")
		want := api.ConnectionCount{Count: 5, More: 2, Groups: []api.ConnectionGroup{{
			Name: "198.51.100.7", Count: 3,
			Traffic: &api.ConnectionTraffic{In: api.Traffic{Packets: 1, Bytes: 1 << 63}, Out: api.Traffic{Packets: 3, Bytes: 4}},
		}}}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	})
	t.Run("ages", func(t *testing.T) {
		for _, test := range []struct {
			query api.ConnectionQuery
			want  uint64
		}{
			{api.ConnectionQuery{MinAge: time.Hour}, 2},
			{api.ConnectionQuery{MaxAge: time.Hour, MinAge: time.Second}, 1},
			{api.ConnectionQuery{MinIdle: time.Hour}, 1},
			{api.ConnectionQuery{MaxIdle: time.Hour}, 4},
		} {
			if n, err := client.CountConnections(t.Context(), test.query); err != nil || n != test.want {
				t.Errorf("%+v: %d, %v; want %d", test.query, n, err, test.want)
			}
		}
	})
	t.Run("reset", func(t *testing.T) {
		n, err := client.ResetConnections(t.Context(), api.ConnectionQuery{MinAge: time.Hour, Kind: "connection"})
		want := []director.ConnectionFilter{{Kind: director.KindConnection, Age: director.Span{AtLeast: time.Hour}}}
		if got := fake.Resets(); n != 2 || err != nil || !slices.Equal(want, got) {
			t.Errorf("%d, %v, by %+v; want %+v", n, err, got, want)
		}
	})
}

// TestNoTable: what needs a data plane with a table of its own says so, and nothing
// else needs one.
func TestNoTable(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	fake.SetFeatures(director.IPVSFeatures())
	fake.SetConnections(conntrack.Connection{Protocol: conntrack.UDP, State: conntrack.UDPNormal, Client: netip.MustParseAddrPort("198.51.100.7:1")})
	d := director.New(directortest.NoTable(fake), &directortest.Store{}, director.Options{})
	if err := d.Start(t.Context(), director.State{Services: []director.Service{{
		Key: webKey, Name: "web", Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.11:8080"), Weight: 1}},
	}}}, director.Request{}); err != nil {
		t.Fatal(err)
	}
	h := api.NewHandler(d, api.Options{})
	for _, test := range []struct{ method, path, body, want string }{
		{"GET", "/v1/connections?min-age=1s", "", "select connections by age or idle time: not supported by the data plane ipvs: the table is the kernel's own"},
		{"GET", "/v1/connections/count?max-idle=1s", "", "select connections by age or idle time: not supported"},
		{"GET", "/v1/connections/count?by=age", "", "count connections by age: not supported"},
		{"GET", "/v1/connections/watch", "", "watch connections: not supported"},
		{"GET", "/v1/connections/dump", "", "dump connections: not supported"},
		{"POST", "/v1/connections/load", "x", "load connections: not supported"},
		{"GET", "/v1/connections/check", "", "check the connection tables: not supported"},
		{"POST", "/v1/connections/resize", `{"ipv4":4096}`, "resize the connection tables: not supported"},
		{"DELETE", "/v1/connections?kind=template&reset=true", "", "reset connections: not supported"},
		{"DELETE", "/v1/connections?min-idle=1h", "", "select connections by age or idle time: not supported"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		if strings.HasSuffix(test.path, "/load") {
			r.Header.Set("Content-Type", "application/octet-stream")
		}
		h.ServeHTTP(w, api.AsAdmin(r))
		if w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s %s: %d %s; want %q", test.method, test.path, w.Code, w.Body, test.want)
		}
	}
	for _, by := range []string{"client", "server", "state"} {
		if w := ask(h, "GET", "/v1/connections/count?by="+by, ""); w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"count":1,"groups":[{"name":"`) {
			t.Errorf("by %s: %d %s", by, w.Code, w.Body)
		}
	}
}
