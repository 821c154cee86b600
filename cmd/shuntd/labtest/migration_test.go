package labtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs"
	"github.com/shunt-lb/shunt/realserver"
)

// downloads is how many are open while services move, half of them by IPv4 and nat,
// half by IPv6 and dr.
const downloads = 50

// migration is clients and servers of one lab, and downloads that stop in the middle
// until they are let go.
type migration struct {
	*testing.T
	lab  *directortest.Lab
	body []byte
	gate chan struct{} // closed: downloads go on to their ends
}

// newMigration builds the lab. Servers answer / by their names, and /download with
// the body, of which the second half waits for the gate.
func newMigration(t *testing.T) *migration {
	t.Helper()
	guest.Guest(t)
	if os.Getenv(guest.GuestEnv) == "uml" {
		t.Skip("user-mode-linux has no XDP: the step guest runs this")
	}
	m := &migration{T: t, body: make([]byte, 128<<10), gate: make(chan struct{})}
	seed := rand.NewChaCha8([32]byte{1})
	_, _ = seed.Read(m.body)
	m.lab = directortest.Start(t, directortest.Topology{
		Shape: directortest.OneArmed, Servers: 3, Clients: 16, Forwarding: directortest.On,
	})
	for i, s := range m.lab.Servers {
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "server %d", i) })
		mux.HandleFunc("/download", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(m.body)))
			half := len(m.body) / 2
			if _, err := w.Write(m.body[:half]); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-m.gate:
				_, _ = w.Write(m.body[half:]) // the client's checksum tells
			case <-r.Context().Done():
			}
		})
		listener, err := s.Listen(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), 80))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: mux}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(listener) })
		t.Cleanup(func() { server.Close(); serving.Wait() })
	}
	return m
}

// services are one by IPv4 and nat, and one by IPv6 and dr, whose servers the
// clients' addresses decide on.
func (m *migration) services(vip director.VIPOwner) []director.Service {
	var all []director.Service
	for _, s := range []struct {
		vip    netip.Addr
		method realserver.Method
	}{{directortest.VIP4, realserver.NAT}, {directortest.VIP6, realserver.DR}} {
		service := director.Service{
			Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: netip.AddrPortFrom(s.vip, 80)},
			Scheduler: director.SourceHash, VIP: vip,
		}
		for i, server := range m.lab.Servers {
			service.Servers = append(service.Servers, realserver.Server{
				Address: netip.AddrPortFrom(server.Addr(s.vip), 80), Method: s.method, Weight: uint32(i + 1),
			})
		}
		all = append(all, service.Normalize())
	}
	return all
}

func (m *migration) clients(vip netip.Addr) []netip.Addr {
	if vip.Is4() {
		return m.lab.ClientAddrs4
	}
	return m.lab.ClientAddrs6
}

// get asks for a path from one of the client's addresses.
func (m *migration) get(from, vip netip.Addr, path string) (*http.Response, error) {
	client := m.lab.Client.HTTPClient(directortest.ClientOptions{Source: from})
	request, err := http.NewRequestWithContext(m.Context(), http.MethodGet, "http://"+netip.AddrPortFrom(vip, 80).String()+path, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(request)
}

// choices returns which server each client address gets.
func (m *migration) choices() map[string]string {
	m.Helper()
	got := map[string]string{}
	for _, vip := range []netip.Addr{directortest.VIP4, directortest.VIP6} {
		for _, from := range m.clients(vip) {
			response, err := m.get(from, vip, "/")
			if err != nil {
				m.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				m.Fatal(err)
			}
			got[from.String()] = string(text)
		}
	}
	return got
}

// begin opens the downloads and reads what comes before the gate. The function it
// returns lets them go, and reports what broke.
func (m *migration) begin() func() {
	m.Helper()
	want := sha256.Sum256(m.body)
	var open, ended errgroup.Group
	for i := range downloads {
		vip := []netip.Addr{directortest.VIP4, directortest.VIP6}[i%2]
		addresses := m.clients(vip)
		open.Go(func() error {
			response, err := m.get(addresses[i/2%len(addresses)], vip, "/download")
			if err != nil {
				return fmt.Errorf("download %d: %w", i, err)
			}
			var body bytes.Buffer
			if _, err := io.CopyN(&body, response.Body, int64(len(m.body)/2)); err != nil {
				return fmt.Errorf("download %d: the first half: %w", i, errors.Join(err, response.Body.Close()))
			}
			ended.Go(func() error {
				_, err := io.Copy(&body, response.Body)
				if err := errors.Join(err, response.Body.Close()); err != nil {
					return fmt.Errorf("download %d from %s: broken after %d of %d bytes: %w", i, vip, body.Len(), len(m.body), err)
				}
				if sha256.Sum256(body.Bytes()) != want {
					return fmt.Errorf("download %d from %s: the checksum is wrong", i, vip)
				}
				return nil
			})
			return nil
		})
	}
	if err := open.Wait(); err != nil {
		m.Fatal(err)
	}
	return func() {
		m.Helper()
		close(m.gate)
		if err := ended.Wait(); err != nil {
			m.Error(err)
		}
	}
}

// kernelPlane opens the kernel's IPVS in the director's namespace, as somebody else.
func (m *migration) kernelPlane() *ipvs.Dataplane {
	m.Helper()
	var plane *ipvs.Dataplane
	err := m.lab.Director.Do(func() (err error) {
		plane, err = ipvs.Open(m.Context(), ipvs.Options{Driver: "genetlink", Beside: true})
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		if err := plane.Close(); err != nil {
			m.Error(err)
		}
	})
	return plane
}

// wantNone fails unless the kernel's IPVS has no service left.
func (m *migration) wantNone(plane *ipvs.Dataplane) {
	m.Helper()
	found, err := plane.Found(context.Background())
	if err != nil {
		m.Fatal(err)
	}
	if len(found.Services) > 0 {
		m.Errorf("the kernel's IPVS has still %d services", len(found.Services))
	}
}

// wantSame fails unless clients get the servers they got.
func (m *migration) wantSame(before, after map[string]string) {
	m.Helper()
	for client, server := range before {
		if after[client] != server {
			m.Errorf("client %s: %s, and after the move %s", client, server, after[client])
		}
	}
}

// wantPackets fails unless the daemon counts packets of both services.
func (m *migration) wantPackets(d *daemon) {
	m.Helper()
	for _, s := range m.services("") {
		if n, _ := d.counters(m.T, s.Key.String()); n.In.Packets == 0 {
			m.Errorf("no packet of %s came through XDP", s.Key)
		}
	}
}

// firewall runs commands of nft on the director.
func (m *migration) firewall(commands string) {
	m.Helper()
	if out, err := m.lab.Director.Command(m.Context(), "nft", commands).CombinedOutput(); err != nil {
		m.Fatalf("nft: %v: %s", err, out)
	}
}

// TestMigrationOfForeign moves services that somebody else made in the kernel's IPVS,
// with downloads open.
func TestMigrationOfForeign(t *testing.T) {
	m := newMigration(t)
	plane := m.kernelPlane()
	services := m.services(director.VIPExternal)
	// By itself the next client's server would be another one: it is the template
	// that leads a client to the same again.
	services[0].Scheduler, services[0].Persistence = director.RoundRobin, director.Persistence{Timeout: 5 * time.Minute, Prefix: 32}
	lo, err := m.lab.Director.Netlink().LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		address := s.Key.Address.Addr()
		if err := m.lab.Director.Netlink().AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(address.AsSlice())}); err != nil {
			t.Fatal(err)
		}
		ops := []director.Operation{director.AddService{Service: s}}
		for _, server := range s.Servers {
			ops = append(ops, director.AddServer{Key: s.Key, Server: server})
		}
		if err := plane.Apply(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
	}
	before := m.choices()
	end := m.begin()
	d := startDaemon(t, m.lab)

	trial := read[api.MigrationReport](t, d, "migrate", "ipvs-to-xdp", "--dry-run")
	if len(trial.Services) != 2 || trial.Services[0].Moved || trial.Services[0].Connections < downloads/2 {
		t.Errorf("the trial says %+v", trial)
	}
	if services := read[[]api.Service](t, d, "service", "list"); len(services) != 0 {
		t.Errorf("the trial made %d services", len(services))
	}
	m.firewall("add table inet f; add chain inet f in { type filter hook input priority 0; }; add rule inet f in ip saddr 203.0.113.0/24 tcp dport 80 drop")
	if r := d.try(t, "migrate", "ipvs-to-xdp"); r.code != 1 || !strings.Contains(r.stderr, "this rule of inet f in: ip saddr 203.0.113.0/24 tcp dport 80 drop") {
		t.Errorf("with a rule: %d %s", r.code, r.stderr)
	}
	if services := read[[]api.Service](t, d, "service", "list"); len(services) != 0 {
		t.Errorf("what was refused made %d services", len(services))
	}
	m.firewall("delete table inet f")
	report := read[api.MigrationReport](t, d, "migrate", "ipvs-to-xdp")
	for _, s := range report.Services {
		if !s.Moved || s.Connections < downloads/2 || len(s.Skipped) > 0 {
			t.Errorf("service %s: %+v", s.Service, s)
		}
	}
	m.wantNone(plane)
	end()
	m.wantSame(before, m.choices())
	m.wantPackets(d)
	if events := d.told(t, 0, "migrated"); len(events) != 2 {
		t.Errorf("events %+v, want one of each service", events)
	}
	// What is moved is Shunt's: there is nothing to move again.
	if r := d.try(t, "migrate", "ipvs-to-xdp", report.Services[0].Service); r.code != 1 || !strings.Contains(r.stderr, "not found in the kernel's IPVS") {
		t.Errorf("moved again: %d %s", r.code, r.stderr)
	}
}

// TestMigrationAtStart is a daemon that had the data plane ipvs, and has xdp from
// its next start on.
func TestMigrationAtStart(t *testing.T) {
	m := newMigration(t)
	d := newDaemon(t, m.lab.Director, m.lab.DirectorLinks)
	onXDP := d.args
	d.args = []string{"--socket", d.socket, "--state", d.state, "--dataplane", "ipvs"}
	d.start(t)
	for _, s := range m.services(director.VIPManaged) {
		d.shunt(t, "service", "add", s.Key.String(), "--scheduler", string(s.Scheduler))
		for _, server := range s.Servers {
			d.shunt(t, "server", "add", s.Key.String(), server.Address.String(), "--method", server.Method.String(), "--weight", fmt.Sprint(server.Weight))
		}
	}
	before := m.choices()
	end := m.begin()
	d.stop(t)

	d.args = onXDP
	d.start(t)
	plane := m.kernelPlane()
	m.wantNone(plane)
	end()
	m.wantSame(before, m.choices())
	m.wantPackets(d)
	// An ordinary restart moves nothing.
	d.stop(t)
	d.start(t)
	m.wantSame(before, m.choices())
}
