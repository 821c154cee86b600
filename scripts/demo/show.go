package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

const (
	webPort  = 8080
	bodySize = 2000 // bytes of an answer: more than one packet
)

// services are what the demo shows. DR rewrites no port, so its service has the
// servers' port.
var services = []struct {
	name, method string
	address      netip.AddrPort
	weights      []int // of the servers
}{
	{"web", "nat", netip.MustParseAddrPort("192.0.2.10:80"), []int{3, 2, 1}},
	{"direct", "dr", netip.MustParseAddrPort("192.0.2.20:8080"), []int{1, 1, 1}},
	{"web6", "nat", netip.MustParseAddrPort("[2001:db8::10]:80"), []int{1, 1, 1}},
}

func vips() []netip.Addr {
	var addrs []netip.Addr
	for _, s := range services {
		addrs = append(addrs, s.address.Addr())
	}
	return addrs
}

// show configures the services, sends the requests, and holds the director's
// counters to what the client saw.
func show(ctx context.Context, lab *directortest.Lab, d *daemon, requests int) error {
	title("Configuring the services")
	for _, s := range services {
		if err := d.cli(ctx, "service", "add", "tcp://"+s.address.String(), "--name", s.name, "--scheduler", "wrr"); err != nil {
			return err
		}
		for i, server := range lab.Servers {
			address := netip.AddrPortFrom(server.Addr(s.address.Addr()), webPort).String()
			if err := d.cli(ctx, "server", "add", s.name, address, "--method", s.method, "--weight", strconv.Itoa(s.weights[i])); err != nil {
				return err
			}
		}
	}
	if err := waitReachable(ctx, d); err != nil {
		return err
	}

	title("%d HTTP requests to each service, a connection each: who answered", requests)
	client := lab.Client.HTTPClient(directortest.ClientOptions{})
	for _, s := range services {
		answers, err := ask(ctx, client, s.address, requests)
		if err != nil {
			return fmt.Errorf("service %s: %w", s.name, err)
		}
		fmt.Printf("%-7s %-4s weights %v:", s.name, s.method, s.weights)
		for _, name := range slices.Sorted(maps.Keys(answers)) {
			fmt.Printf("  %s %d", name, answers[name])
		}
		fmt.Println()
		if err := checkShares(lab, s.weights, answers, requests); err != nil {
			return fmt.Errorf("service %s: %w", s.name, err)
		}
	}

	title("What the director knows")
	for _, args := range [][]string{{"status"}, {"service", "list"}, {"conn", "list", "--limit", "10"}, {"stats"}, {"drops"}} {
		if err := d.cli(ctx, args...); err != nil {
			return err
		}
		fmt.Println()
	}
	return checkCounters(ctx, lab, d, requests)
}

// waitReachable waits until the director has a next hop for each server.
func waitReachable(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		out, err := d.query(ctx, "status", "-o", "json")
		if err != nil {
			return err
		}
		var status api.Status
		if err := json.Unmarshal(out, &status); err != nil {
			return fmt.Errorf("answer of shunt status: %w", err)
		}
		if status.Unreachable == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d servers are unreachable after %s", status.Unreachable, startLimit)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ask sends requests one after another and counts the answers by server.
func ask(ctx context.Context, client *http.Client, address netip.AddrPort, requests int) (map[string]int, error) {
	answers := map[string]int{}
	for i := range requests {
		url := fmt.Sprintf("http://%s/bytes/%d", address, bodySize)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		answer, err := client.Do(request)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", i+1, err)
		}
		count, err := directortest.Pattern().Compare(answer.Body)
		_ = answer.Body.Close() // read to its end
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", i+1, err)
		}
		if count != bodySize || answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("request %d: %s with %d bytes of %d", i+1, answer.Status, count, bodySize)
		}
		answers[answer.Header.Get(directortest.HeaderServer)]++
	}
	return answers, nil
}

// checkShares holds the answers to the weights. Over whole rounds weighted
// round robin is exact; a part of a round is a part of the weights.
func checkShares(lab *directortest.Lab, weights []int, answers map[string]int, requests int) error {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	for i, s := range lab.Servers {
		rounds := requests / sum
		if got := answers[s.Name]; got < rounds*weights[i] || got > (rounds+1)*weights[i] {
			return fmt.Errorf("%s answered %d of %d requests at weight %d of %d", s.Name, got, requests, weights[i], sum)
		}
	}
	return nil
}

// checkCounters proves that the requests went through the director: a lab may
// answer them all while the traffic bypasses it.
func checkCounters(ctx context.Context, lab *directortest.Lab, d *daemon, requests int) error {
	out, err := d.query(ctx, "stats", "-o", "json")
	if err != nil {
		return err
	}
	var stats []api.ServiceStats
	if err := json.Unmarshal(out, &stats); err != nil {
		return fmt.Errorf("answer of shunt stats: %w", err)
	}
	for _, s := range services {
		i := slices.IndexFunc(stats, func(t api.ServiceStats) bool { return t.Name == s.name })
		if i < 0 {
			return fmt.Errorf("shunt stats has no service %s", s.name)
		}
		c := stats[i].Counters
		// SYN, its acknowledgement, the request and a FIN at least; with NAT
		// the reply's data too.
		if c.Connections != uint64(requests) || c.In.Packets < 4*c.Connections {
			return fmt.Errorf("service %s: the director counted %d connections and %d packets for %d requests", s.name, c.Connections, c.In.Packets, requests)
		}
		if s.method == "nat" && c.Out.Bytes < bodySize*c.Connections {
			return fmt.Errorf("service %s: the director counted %d reply bytes for %d requests of %d", s.name, c.Out.Bytes, requests, bodySize)
		}
	}
	for _, n := range []*directortest.Namespace{lab.Client, lab.Servers[0].Namespace} {
		bad, err := n.ChecksumErrors()
		if err != nil {
			return err
		}
		if bad > 0 {
			return fmt.Errorf("%s received %d packets with a wrong checksum", n.Name, bad)
		}
	}
	return nil
}
