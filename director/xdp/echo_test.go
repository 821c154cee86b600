package xdp

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// echoes is what the trie has.
func (r *rig) echoKeys() map[string]string {
	r.t.Helper()
	entries, err := r.plane.EchoEntries()
	if err != nil {
		r.t.Fatal(err)
	}
	names := map[bpf.KernelEcho]string{
		bpf.KernelEchoECHO_PASSED: "passed", bpf.KernelEchoECHO_ANSWERED: "answered", bpf.KernelEchoECHO_DROPPED: "dropped",
	}
	all := map[string]string{}
	for _, e := range entries {
		p, ok := e.Key.Prefix()
		if !ok {
			r.t.Errorf("key %+v is of no prefix", e.Key)
		}
		all[p.String()] = names[e.Echo]
	}
	return all
}

func (r *rig) wantEchoes(what string, want map[string]string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.echoKeys()); diff != "" {
		r.t.Errorf("%s: what becomes of echo requests (-want +got):\n%s", what, diff)
	}
}

func echoService(key director.ServiceKey) director.Service {
	return director.Service{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal}
}

func prefixKey(prefix string, port uint16) director.ServiceKey {
	p := netip.MustParsePrefix(prefix)
	key := director.ServiceKey{Protocol: testService(director.RoundRobin, director.SchedulerFlags{}).Key.Protocol, Address: netip.AddrPortFrom(p.Addr(), port)}
	if !p.IsSingleIP() {
		key.Bits = uint8(p.Bits())
	}
	return key
}

// An address answers while a service that has it has a server to offer; whatever
// changes that, a restart and somebody else's hand included.
func TestEcho(t *testing.T) {
	r := newRig(t, Options{})
	one, same := prefixKey("192.0.2.1/32", 80), prefixKey("192.0.2.1/32", 443)
	six := prefixKey("2001:db8::1/128", 80)
	wide, large := prefixKey("192.0.2.0/24", 8000), prefixKey("10.64.0.0/16", 8000)
	here := realserver.Server{Address: netip.MustParseAddrPort("127.0.0.1:8080"), Method: realserver.Local, Weight: 1}

	r.wantEchoes("without services", map[string]string{})
	r.must(director.AddService{Service: echoService(one)}, director.AddService{Service: echoService(six)}, director.AddService{Service: echoService(large)})
	r.wantEchoes("without servers", map[string]string{"192.0.2.1/32": "dropped", "2001:db8::1/128": "dropped", "10.64.0.0/16": "passed"})
	r.must(director.RemoveService{Key: large})
	r.must(director.AddServer{Key: one, Server: here})
	r.wantEchoes("with a server", map[string]string{"192.0.2.1/32": "answered", "2001:db8::1/128": "dropped"})
	idle := here
	idle.Weight = 0
	r.must(director.EditServer{Key: one, Server: idle}, director.RemoveService{Key: six})
	r.wantEchoes("with weight 0", map[string]string{"192.0.2.1/32": "dropped"})
	// Another service of the address.
	r.must(director.AddService{Service: echoService(same)}, director.AddServer{Key: same, Server: here})
	r.wantEchoes("another port", map[string]string{"192.0.2.1/32": "answered"})
	r.must(director.RemoveService{Key: same})
	r.wantEchoes("no other port", map[string]string{"192.0.2.1/32": "dropped"})
	// One of many addresses, this one among them.
	r.must(director.AddService{Service: echoService(wide)}, director.AddServer{Key: wide, Server: here})
	r.wantEchoes("a prefix", map[string]string{"192.0.2.1/32": "answered", "192.0.2.0/24": "answered"})
	r.must(director.RemoveServer{Key: wide, Address: here.Address})
	r.wantEchoes("a prefix without servers", map[string]string{"192.0.2.1/32": "dropped", "192.0.2.0/24": "dropped"})
	r.must(director.RemoveService{Key: wide})

	// Reachable and not.
	r.must(director.AddServer{Key: one, Server: natServer()})
	r.eventually("the server is reachable", func() bool { return r.echoKeys()["192.0.2.1/32"] == "answered" })
	stop := director.RemoveServer{Key: one, Address: natServer().Address}
	r.must(stop)
	r.wantEchoes("its server removed", map[string]string{"192.0.2.1/32": "dropped"})
	r.must(director.EditServer{Key: one, Server: here})

	t.Run("repaired", func(t *testing.T) {
		if err := r.plane.SetEcho(netip.MustParsePrefix("192.0.2.1/32"), bpf.KernelEchoECHO_DROPPED); err != nil {
			t.Fatal(err)
		}
		if err := r.plane.SetEcho(netip.MustParsePrefix("203.0.113.0/24"), bpf.KernelEchoECHO_ANSWERED); err != nil {
			t.Fatal(err)
		}
		if err := r.plane.VirtualAddresses.Put(bpf.KernelVirtualKey{Bits: 40, Family: 9}, uint32(7)); err != nil {
			t.Fatal(err)
		}
		if err := r.review(); err != nil {
			t.Fatal(err)
		}
		r.wantEchoes("repaired", map[string]string{"192.0.2.1/32": "answered"})
		if err := r.plane.ClearEcho(bpf.VirtualKey(netip.MustParsePrefix("192.0.2.1/32"))); err != nil {
			t.Fatal(err)
		}
		if err := r.review(); err != nil {
			t.Fatal(err)
		}
		r.wantEchoes("repaired", map[string]string{"192.0.2.1/32": "answered"})
	})
	for mode, want := range map[director.EchoMode]string{director.EchoStack: "passed", director.EchoAlways: "answered", director.EchoService: "dropped"} {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.opts.Echo = mode
		r.open()
		r.must(director.EditServer{Key: one, Server: idle})
		r.wantEchoes("restarted with "+string(mode), map[string]string{"192.0.2.1/32": want})
	}
}

// The segment size is in force with the service, and over a restart.
func TestServiceMSS(t *testing.T) {
	r := newRig(t, Options{})
	service := echoService(prefixKey("192.0.2.1/32", 80))
	service.MSS = 1400
	r.must(director.AddService{Service: service})
	mss := func() (inMap, found uint16) {
		t.Helper()
		services, err := bpf.ReadArray[bpf.KernelService](r.plane.Services)
		if err != nil {
			t.Fatal(err)
		}
		state, err := r.Found(t.Context())
		if err != nil || len(state.Services) != 1 || state.Services[0].Scheduler == "" {
			t.Fatalf("found %+v: %v", state.Services, err)
		}
		return services[1].Mss, state.Services[0].MSS
	}
	if inMap, found := mss(); inMap != 1400 || found != 1400 {
		t.Errorf("added: %d in the map, %d found", inMap, found)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if inMap, found := mss(); inMap != 1400 || found != 1400 {
		t.Errorf("restarted: %d in the map, %d found", inMap, found)
	}
	service.MSS = 0
	r.must(director.EditService{Service: service})
	if inMap, found := mss(); inMap != 0 || found != 0 {
		t.Errorf("edited: %d in the map, %d found", inMap, found)
	}
}
