package directortest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var shapes = []directortest.Shape{directortest.TwoArmed, directortest.OneArmed}

// get fetches a URL once and returns the answer with its body read.
func get(t *testing.T, client *http.Client, url string) (*http.Response, int64) {
	t.Helper()
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, answer.Status)
	}
	count, err := directortest.Pattern().Compare(answer.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return answer, count
}

func TestLabRoutesThroughTheDirector(t *testing.T) {
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			lab := directortest.Start(t, directortest.Topology{
				Shape: shape, Servers: 3, Clients: 300, Forwarding: directortest.On,
			})
			webs, err := lab.ServeHTTP(8080)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lab.ServeUDP(53); err != nil {
				t.Fatal(err)
			}
			before := forwarded(t, lab)
			const size = 300_000
			for i, s := range lab.Servers {
				for _, way := range []struct{ source, server netip.Addr }{
					{lab.ClientAddrs4[299], s.Addr4}, {lab.ClientAddrs6[299], s.Addr6},
				} {
					client := lab.Client.HTTPClient(directortest.ClientOptions{Source: way.source})
					server := netip.AddrPortFrom(way.server, 8080)
					answer, count := get(t, client, fmt.Sprintf("http://%s/bytes/%d", server, size))
					from, err := netip.ParseAddrPort(answer.Header.Get(directortest.HeaderClient))
					if err != nil {
						t.Fatal(err)
					}
					if count != size || answer.Header.Get(directortest.HeaderServer) != s.Name ||
						answer.Header.Get(directortest.HeaderLocal) != server.String() || from.Addr() != way.source {
						t.Errorf("%d bytes from %s, want %d; header %v", count, server, size, answer.Header)
					}

					dns := netip.AddrPortFrom(way.server, 53)
					name, err := lab.Client.QueryUDP(t.Context(), netip.AddrPort{}, dns, 7, 5*time.Second)
					if err != nil || name != s.Name {
						t.Errorf("query to %s answered by %q, %v", dns, name, err)
					}
				}
				if got := webs[i].Served(); got != 2 {
					t.Errorf("%s served %d requests, want 2", webs[i].Name(), got)
				}
			}
			// Without this a bridge would do for a one-armed lab.
			for family, count := range forwarded(t, lab) {
				if count-before[family] < 100 {
					t.Errorf("the director forwarded %d %s packets: the traffic bypassed it", count-before[family], family)
				}
			}
			for _, n := range []*directortest.Namespace{lab.Client, lab.Servers[0].Namespace} {
				if bad, err := n.ChecksumErrors(); err != nil || bad != 0 {
					t.Errorf("%d checksum errors in %s, %v", bad, n.Name, err)
				}
			}
		})
	}
}

func forwarded(t *testing.T, lab *directortest.Lab) map[string]uint64 {
	t.Helper()
	counters, err := lab.Director.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]uint64{"IPv4": counters["IpForwDatagrams"], "IPv6": counters["Ip6OutForwDatagrams"]}
}

func TestLabWithoutForwardingLeadsNowhere(t *testing.T) {
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			lab := directortest.Start(t, directortest.Topology{Shape: shape, Servers: 1})
			if _, err := lab.ServeUDP(53); err != nil {
				t.Fatal(err)
			}
			for _, to := range []netip.Addr{
				lab.Servers[0].Addr4, lab.Servers[0].Addr6, directortest.VIP4, directortest.VIP6,
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				name, err := lab.Client.QueryUDP(ctx, netip.AddrPort{}, netip.AddrPortFrom(to, 53), 1, time.Minute)
				cancel()
				if err == nil {
					t.Errorf("%s answered for %s, but nothing leads there", name, to)
				}
			}
		})
	}
}

// In a one-armed lab the replies from a virtual address must not need the
// director, which is what DR is. The director only routes the request here.
func TestLabRepliesFromVIPGoDirectly(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{
		Shape: directortest.OneArmed, Servers: 2, Forwarding: directortest.On,
	})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	s := lab.Servers[1]
	for _, vip := range lab.Topology.VIPs {
		family := map[bool]string{true: "IPv4", false: "IPv6"}[vip.Is4()]
		if err := lab.Director.AddRoute(netip.PrefixFrom(vip, vip.BitLen()), s.Addr(vip)); err != nil {
			t.Fatal(err)
		}
		before := forwarded(t, lab)[family]
		client := lab.Client.HTTPClient(directortest.ClientOptions{})
		const size = 1_000_000
		answer, _ := get(t, client, fmt.Sprintf("http://%s/bytes/%d", netip.AddrPortFrom(vip, 80), size))
		if got := answer.Header.Get(directortest.HeaderServer); got != s.Name {
			t.Errorf("%s answered for %s, want %s", got, vip, s.Name)
		}
		// Requests and acknowledgements; the reply has about 700 packets.
		requests := forwarded(t, lab)[family] - before
		received, err := s.Counters()
		if err != nil {
			t.Fatal(err)
		}
		if requests < 3 || requests > received["TcpInSegs"] {
			t.Errorf("%s: the director forwarded %d packets, the server got %d", vip, requests, received["TcpInSegs"])
		}
	}
}

func TestLabAddVIP(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Servers: 1, Forwarding: directortest.On})
	vip := netip.MustParseAddr("192.0.2.77")
	if err := lab.AddVIP(vip); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	if err := lab.Director.AddRoute(netip.PrefixFrom(vip, 32), lab.Servers[0].Addr4); err != nil {
		t.Fatal(err)
	}
	get(t, lab.Client.HTTPClient(directortest.ClientOptions{}), "http://192.0.2.77/bytes/1")
}

func TestLabUpload(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Servers: 1, MTU: 9000, Forwarding: directortest.On})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	url := "http://" + lab.Servers[0].Addr4.String() + ":80/upload"
	client := lab.Client.HTTPClient(directortest.ClientOptions{})
	post := func(body io.Reader) (int, string) {
		answer, err := client.Post(url, "application/octet-stream", body)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, strings.TrimSpace(string(text))
	}
	if status, text := post(io.LimitReader(directortest.Pattern(), 500_000)); status != 200 || text != "500000" {
		t.Errorf("upload of 500000 bytes: %d %q", status, text)
	}
	if status, text := post(strings.NewReader("\x00\x01\x03")); status != 400 || !strings.Contains(text, "byte 2") {
		t.Errorf("upload of another body: %d %q, want 400 and the place", status, text)
	}
}

func TestLabCloseLeavesNothing(t *testing.T) {
	directortest.Privileged(t)
	hostLinks := links(t)
	for _, shape := range shapes {
		lab, err := directortest.NewLab(directortest.Topology{Shape: shape})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = lab.Close() })
		if _, err := lab.ServeHTTP(80); err != nil {
			t.Fatal(err)
		}
		inodes := map[string]bool{}
		for _, n := range append([]*directortest.Namespace{lab.Client, lab.Director}, lab.Servers[0].Namespace) {
			var stat unix.Stat_t
			if err := unix.Fstat(int(n.File().Fd()), &stat); err != nil {
				t.Fatal(err)
			}
			inodes[fmt.Sprintf("net:[%d]", stat.Ino)] = true
		}
		sleeper := lab.Director.Command(context.Background(), "sleep", "1000")
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		if len(holders(t, inodes)) == 0 {
			t.Fatal("found no holder of the lab's namespaces while it runs: the test cannot see them")
		}
		if err := lab.Close(); err != nil {
			t.Fatal(err)
		}
		if sleeper.ProcessState == nil {
			t.Error("the process in the lab was not waited for")
		}
		// The kernel ends threads after the goroutine that held them.
		deadline := time.Now().Add(10 * time.Second)
		for len(holders(t, inodes)) > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if left := holders(t, inodes); len(left) > 0 {
			t.Errorf("%s: namespaces still held by %v", shape, left)
		}
	}
	if got := links(t); got != hostLinks {
		t.Errorf("links of the host: %s, before the lab %s", got, hostLinks)
	}
}

// holders lists the threads and open files of all processes that are in, or
// refer to, one of the namespaces.
func holders(t *testing.T, inodes map[string]bool) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/[0-9]*/fd/[0-9]*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if target, err := os.Readlink(path); err == nil && inodes[target] {
				found = append(found, path)
			}
		}
	}
	return found
}

func links(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestTopologyRefusesNonsense(t *testing.T) {
	for want, topology := range map[string]directortest.Topology{
		"unknown lab shape": {Shape: "ring"},
		"201 servers":       {Servers: 201},
		"-1 servers":        {Servers: -1},
		"50001 client":      {Clients: 50001},
	} {
		lab, err := directortest.NewLab(topology)
		if err == nil {
			_ = lab.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
