package offer_test

import (
	"context"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// A server that an agent registered too, and that is configured no more, stays in the
// kernel with its connections; one that a lease brought and that is down does not come up
// by being configured.
func TestOriginChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		health := checked()
		health.Pool = "blue"
		r := start(t, web(health, 4))
		defer func() { r.stop() }()
		ctx := context.Background()
		r.SetLeases("blue", []realserver.Server{server(1, 9), server(2, 3)})
		r.want(t, "nobody was asked", "10.0.0.1=0 10.0.0.2=0")
		r.checks.say(first, true)
		r.checks.say(second, true)
		r.want(t, "both", "10.0.0.1=4 10.0.0.2=3")
		r.fake.Operations()
		if _, err := r.RemoveServer(ctx, by, key, first); err != nil {
			t.Fatal(err)
		}
		r.want(t, "removed, and leased", "10.0.0.1=9 10.0.0.2=3")
		for _, op := range r.fake.Operations() {
			if _, ok := op.(director.EditServer); !ok {
				t.Errorf("%s: it ends connections", op)
			}
		}

		r.checks.say(second, false)
		r.want(t, "one is down", "10.0.0.1=9 10.0.0.2=0")
		r.fake.Operations()
		if _, err := r.AddServer(ctx, by, key, server(2, 5)); err != nil {
			t.Fatal(err)
		}
		r.want(t, "the one that is down is configured", "10.0.0.1=9 10.0.0.2=0")
		for _, op := range r.fake.Operations() {
			t.Errorf("%s: it is down", op)
		}
	})
}
