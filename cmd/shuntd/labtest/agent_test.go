package labtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// Fifty agents register their servers, report their loads, drain them and leave while
// clients ask all the time and the director restarts: no request fails. The leases of
// those that are killed end once each, before the restart or after it, and messages that
// are forged or said again are refused.
func TestAgents(t *testing.T) {
	// The first is tapped, and so is the first of those that leave. A lease that ends takes
	// a server with its connections: of those that are killed nobody asks then.
	const count, stay, leave = 50, 20, 20
	f := startFleet(t, slices.Concat(slices.Repeat([]string{"web"}, stay+leave), slices.Repeat([]string{"doomed"}, count-stay-leave)), 0, stay)
	staying, leaving, killed, killedLater := f.agents[:stay], f.agents[stay:stay+leave], f.agents[stay+leave:stay+leave+5], f.agents[stay+leave+5:]
	await(t, "the first server answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := job{address: fleetPools["web"], size: 100}.doWithin(ctx, f.lab.Client)
		return err == nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	clients.Go(func() { f.load(ctx, 4) })
	f.begin(f.agents[1:])
	total := f.answer(f.agents[:stay+leave])
	for range count - stay - leave {
		_, err := job{service: "doomed", address: fleetPools["doomed"], size: 100}.run(f.lab.Client)
		ok(t, err)
	}
	for _, m := range killed {
		m.kill()
	}
	f.forges()
	if loads := slices.DeleteFunc(f.members("web"), func(m api.Member) bool { return m.Load == nil }); len(loads) != stay+leave {
		t.Errorf("%d agents report their load, want %d", len(loads), stay+leave)
	}
	logs := []*logText{f.d.log}
	await(t, "leases end", func() bool { return len(told(logs, "lease-expired")) == len(killed) })
	for _, m := range killedLater {
		m.kill()
	}
	f.d.stop(t)
	f.d.start(t)
	logs = append(logs, f.d.log)
	f.leave(leaving)
	await(t, "leases end after the restart", func() bool { return len(told(logs, "lease-expired")) == len(killed)+len(killedLater) })

	total += f.answer(staying)
	f.refuses("said again after a restart", f.taps[0].captured(), 409, "replayed")
	f.refuses("said again of one that has left", f.taps[1].captured(), 409, "replayed")
	cancel()
	clients.Wait()
	for _, err := range f.failed {
		t.Error(err)
	}
	for name, want := range map[string][]*member{
		"server-registered": f.agents, "lease-expired": f.agents[stay+leave:], "server-left": leaving, "server-leaving": leaving,
	} {
		if diff := cmp.Diff(names(want), told(logs, name)); diff != "" {
			t.Errorf("events %s by agent (-want +got):\n%s", name, diff)
		}
	}
	if left := len(f.members("web")); left != stay {
		t.Errorf("the pool has %d members, want %d", left, stay)
	}
	if out, want := f.d.shunt(t, "status"), fmt.Sprintf("0, and %d by agents\n", stay); !strings.Contains(out, want) {
		t.Errorf("the status is without %q:\n%s", want, out)
	}
	f.d.noFaults(t)
	t.Logf("figure: %d agents, %d requests, %d failed", count, total+f.since(), len(f.failed))
}

// forges says what agents did not say: each is refused, and named in an event and a count.
func (f *fleet) forges() {
	f.Helper()
	said := f.taps[0].captured()
	f.refuses("said again", said, 409, "replayed")
	stranger, _ := api.NewToken()
	forged := said
	forged.token = "Bearer " + stranger
	f.refuses("with a token that nobody has", forged, 401, "unauthorized")
	forged = said
	forged.token = "Bearer " + f.agents[1].token
	f.refuses("in another's name", forged, 403, "not-its-own")
	forged = said
	forged.body = []byte(`{"boot":"b","sequence":1,"lifetime":"1m","server":{"address":"` + f.agents[2].address.String() + `","method":"nat","weight":1}}`)
	f.refuses("of another's server", forged, 409, "address-taken")

	forged = said
	forged.body = []byte(`{"boot":"b","sequence":1,"lifetime":"1m","server":{"address":"10.2.1.1","method":"nat","weight":1}}`)
	f.refuses("of a server outside its networks", forged, 403, "address-denied")

	want := map[string]uint64{"replayed": 1, "not-its-own": 1, "address-taken": 1, "address-denied": 1}
	refused := f.pools().Counts.Refused
	for reason, n := range refused {
		if n == 0 {
			delete(refused, reason)
		}
	}
	if diff := cmp.Diff(want, refused); diff != "" {
		f.Errorf("refusals counted (-want +got):\n%s", diff)
	}
	list, err := f.d.client(f.T).Events(f.Context(), api.EventQuery{Names: []string{"registration-refused", "access-refused"}})
	ok(f.T, err)
	named := map[string]uint64{}
	for _, e := range list.Events {
		named[e.Reason]++
	}
	want[""] = 1 // of the token: nobody knows whose it is
	if diff := cmp.Diff(want, named); diff != "" {
		f.Errorf("refusals told (-want +got):\n%s", diff)
	}
}
