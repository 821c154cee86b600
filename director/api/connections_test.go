package api_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"time"

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
	client := serve(t, newHandler(t, breaking{directortest.NewFake(director.State{}), many}))
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
	})
	t.Run("an_error_at_once_is_the_answer", func(t *testing.T) {
		w := ask(newHandler(t, breaking{directortest.NewFake(director.State{}), 0}), "GET", "/v1/connections", "")
		if w.Code != 500 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}
