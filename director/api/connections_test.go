package api_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// breaking is a data plane whose walk over connections ends with an error.
type breaking struct {
	*directortest.Fake
	after int
}

func (b breaking) Connections(context.Context, director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		for range b.after {
			if !yield(conntrack.Connection{Protocol: conntrack.TCP, Expires: time.Second}, nil) {
				return
			}
		}
		yield(conntrack.Connection{}, io.ErrClosedPipe)
	}
}

func TestConnections(t *testing.T) {
	const many = 5000
	client := serve(t, newHandler(t, directortest.NoTable(breaking{directortest.NewFake(director.State{}), many})))
	t.Run("a_walk_that_breaks_off_ends_with_its_error", func(t *testing.T) {
		seen := 0
		var last error
		for c, err := range client.Connections(t.Context(), api.ConnectionQuery{}) {
			if last = err; err == nil && c.Protocol == "tcp" {
				seen++
			}
		}
		problem, ok := errors.AsType[*api.Problem](last)
		if seen != many || !ok || problem.Detail != io.ErrClosedPipe.Error() {
			t.Errorf("%d connections, error %v", seen, last)
		}
	})
	t.Run("a_limit_ends_the_walk", func(t *testing.T) {
		seen := 0
		for _, err := range client.Connections(t.Context(), api.ConnectionQuery{Limit: 3}) {
			if err != nil {
				t.Fatal(err)
			}
			seen++
		}
		if seen != 3 {
			t.Errorf("%d connections", seen)
		}
	})
	t.Run("the_caller_can_stop", func(t *testing.T) {
		for _, err := range client.Connections(t.Context(), api.ConnectionQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	})
	t.Run("a_count_that_breaks_off_is_an_error", func(t *testing.T) {
		if n, err := client.CountConnections(t.Context(), api.ConnectionQuery{}); err == nil {
			t.Errorf("counted %d", n)
		}
		if n, err := client.CountConnectionsBy(t.Context(), api.ConnectionQuery{}, "state"); err == nil {
			t.Errorf("counted %+v", n)
		}
	})
	t.Run("an_error_at_once_is_the_answer", func(t *testing.T) {
		w := ask(newHandler(t, directortest.NoTable(breaking{directortest.NewFake(director.State{}), 0})), "GET", "/v1/connections", "")
		if w.Code != 500 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}

// walks counts the walks over the connections.
type walks struct {
	*directortest.Fake
	n int
}

func (w *walks) Connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	w.n++
	return w.Fake.Connections(ctx, filter)
}

// A data plane that is no Table is counted in one walk: the largest part first,
// whatever the protocols; a filter goes for the parts as for the sum.
func TestCountByState(t *testing.T) {
	dp := &walks{Fake: directortest.NewFake(director.State{})}
	var all []conntrack.Connection
	for protocol, states := range map[conntrack.Protocol][]conntrack.State{
		conntrack.UDP:  {conntrack.UDPNormal},
		conntrack.TCP:  {conntrack.FinWait, conntrack.Established, conntrack.None, conntrack.Established},
		conntrack.SCTP: {conntrack.SCTPClosed, conntrack.SCTPEstablished, conntrack.SCTPCookieWait},
	} {
		for _, state := range states {
			all = append(all, conntrack.Connection{Protocol: protocol, State: state})
		}
	}
	all = append(all, conntrack.Connection{Template: true}, conntrack.Connection{Template: true, State: conntrack.Assured})
	dp.SetConnections(all...)
	client := serve(t, newHandler(t, directortest.NoTable(dp)))
	for name, test := range map[string]struct {
		query api.ConnectionQuery
		want  api.ConnectionCount
	}{
		"all": {api.ConnectionQuery{}, api.ConnectionCount{Count: 10, Groups: []api.ConnectionGroup{
			{Name: "ESTABLISHED", Count: 3},
			{Name: "NONE", Count: 2},
			{Name: "ASSURED", Count: 1},
			{Name: "C-WAIT", Count: 1},
			{Name: "CLOSED", Count: 1},
			{Name: "FIN_WAIT", Count: 1},
			{Name: "UDP", Count: 1},
		}}},
		"templates": {api.ConnectionQuery{Kind: "template"}, api.ConnectionCount{Count: 2, Groups: []api.ConnectionGroup{
			{Name: "ASSURED", Count: 1}, {Name: "NONE", Count: 1},
		}}},
		"a_state": {api.ConnectionQuery{State: "Established"}, api.ConnectionCount{Count: 3, Groups: []api.ConnectionGroup{{Name: "ESTABLISHED", Count: 3}}}},
		"none":    {api.ConnectionQuery{State: "LISTEN"}, api.ConnectionCount{Groups: []api.ConnectionGroup{}}},
	} {
		t.Run(name, func(t *testing.T) {
			dp.n = 0
			got, err := client.CountConnectionsBy(t.Context(), test.query, "state")
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if dp.n != 1 {
				t.Errorf("%d walks, want 1", dp.n)
			}
			number, err := client.CountConnections(t.Context(), test.query)
			if err != nil || number != test.want.Count {
				t.Errorf("counted %d, %v; want %d", number, err, test.want.Count)
			}
		})
	}
}
