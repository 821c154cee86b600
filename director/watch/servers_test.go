package watch_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/watch"
)

// web returns statistics of a service whose servers are in the states: "up", or
// the reason why not; "-" leaves the server out.
func web(t *testing.T, states ...string) director.ServiceStats {
	t.Helper()
	key, err := director.ParseServiceKey("tcp://192.0.2.1:80")
	if err != nil {
		t.Fatal(err)
	}
	service := director.ServiceStats{Key: key}
	for i, state := range states {
		if state == "-" {
			continue
		}
		var s director.ServerStats
		s.Server.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)}), 80)
		if s.Reachable = state == "up"; !s.Reachable {
			s.Reason = state
		}
		service.Servers = append(service.Servers, s)
	}
	return service
}

func TestServers(t *testing.T) {
	// Each line is the server's state second by second; a letter each: u up, r
	// resolving, f failed, n unreachable without a reason, - not there.
	words := map[byte]string{'u': "up", 'r': "resolving 10.0.0.1 on eth0", 'f': "no answer from 10.0.0.1", 'n': "", '-': "-"}
	const lost, found = "server-unreachable [tcp://192.0.2.1:80] [10.0.0.1:80] ", "server-reachable [tcp://192.0.2.1:80] [10.0.0.1:80] "
	const noAnswer = "[no answer from 10.0.0.1] server 10.0.0.1:80 of tcp://192.0.2.1:80 gets no new connections: no answer from 10.0.0.1"
	const again = "server 10.0.0.1:80 of tcp://192.0.2.1:80 is reachable again after "
	for name, tt := range map[string]struct {
		states string
		want   []string
	}{
		"a_reachable_one_is_no_news":             {"uuuuu", nil},
		"a_lost_one_is_told_at_once":             {"uufff", []string{"2s " + lost + noAnswer}},
		"it_is_told_when_it_is_back":             {"uffffuuuf", []string{"1s " + lost + noAnswer, "5s " + found + again + "4s", "8s " + lost + noAnswer}},
		"one_that_is_added_may_be_looked_for":    {"--rrruuuuu", nil},
		"one_that_is_not_found_is_told":          {"--rrrffffff", []string{"7s " + lost + noAnswer}},
		"one_unreachable_at_the_start_is_told":   {"ffffffff", []string{"5s " + lost + noAnswer}},
		"one_resolved_after_the_start_is_not":    {"rrruuuuuuu", nil},
		"another_reason_is_no_news":              {"urfrfr", []string{"1s " + lost + "[resolving 10.0.0.1 on eth0] server 10.0.0.1:80 of tcp://192.0.2.1:80 gets no new connections: resolving 10.0.0.1 on eth0"}},
		"without_a_reason":                       {"un", []string{"1s " + lost + "server 10.0.0.1:80 of tcp://192.0.2.1:80 gets no new connections: it has no next hop"}},
		"one_that_is_removed_is_forgotten":       {"uff--uu", []string{"1s " + lost + noAnswer}},
		"one_that_comes_back_is_looked_for_anew": {"uff--rruu", []string{"1s " + lost + noAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			got := watched(t, len(tt.states)-1, watch.Options{}, func(second int) (director.Stats, error) {
				return director.Stats{Services: []director.ServiceStats{web(t, words[tt.states[second]])}}, nil
			})
			compare(t, tt.want, got)
		})
	}
}

func TestServersOfTwoServicesAreApart(t *testing.T) {
	got := watched(t, 1, watch.Options{}, func(second int) (director.Stats, error) {
		a, b := web(t, "up"), web(t, "up")
		b.Key.Address = netip.MustParseAddrPort("192.0.2.1:443")
		if second == 1 {
			b = web(t, "down")
			b.Key.Address = netip.MustParseAddrPort("192.0.2.1:443")
		}
		return director.Stats{Services: []director.ServiceStats{a, b}}, nil
	})
	compare(t, []string{
		"1s server-unreachable [tcp://192.0.2.1:443] [10.0.0.1:80] [down] server 10.0.0.1:80 of tcp://192.0.2.1:443 gets no new connections: down",
	}, got)
}

func TestManyServersAtOnceAreSummedUp(t *testing.T) {
	states := func(state string) []string { return strings.Split(strings.Repeat(state+"|", 999)+state, "|") }
	got := watched(t, 2, watch.Options{ServerEvents: 3}, func(second int) (director.Stats, error) {
		if second == 1 {
			return director.Stats{Services: []director.ServiceStats{web(t, states("interface eth0 is down")...)}}, nil
		}
		return director.Stats{Services: []director.ServiceStats{web(t, states("up")...)}}, nil
	})
	if len(got) != 8 {
		t.Fatalf("%d events, want 3 and a sum each time:\n%s", len(got), strings.Join(got, "\n"))
	}
	compare(t, []string{
		"1s server-unreachable 997 more servers get no new connections",
		"2s server-reachable 997 more servers are reachable again",
	}, []string{got[3], got[7]})
}

func TestResolvingCanBeSet(t *testing.T) {
	got := watched(t, 30, watch.Options{Resolving: 20 * time.Second}, func(int) (director.Stats, error) {
		return director.Stats{Services: []director.ServiceStats{web(t, "resolving")}}, nil
	})
	if len(got) != 1 || !strings.HasPrefix(got[0], "20s server-unreachable") {
		t.Errorf("events %q, want one at 20 s", got)
	}
}
