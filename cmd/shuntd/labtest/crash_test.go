package labtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// desire is a whole configuration: what each service has, one line a server,
// and one for the service itself.
type desire map[string]map[string]uint32

func (d desire) clone() desire {
	c := desire{}
	for service, servers := range d {
		c[service] = maps.Clone(servers)
	}
	return c
}

func (d desire) String() string {
	var lines []string
	for service, servers := range d {
		lines = append(lines, service)
		for server, weight := range servers {
			lines = append(lines, fmt.Sprintf("%s %s %d", service, server, weight))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// editor makes random edits and remembers what was acknowledged.
type editor struct {
	random *rand.Rand
	client *api.Client
	server netip.Addr        // one that answers, so that adding it takes no time
	now    desire            // after the last acknowledged edit
	next   desire            // after the edit under way, or now
	acked  map[uint64]string // revision to what it must hold
	last   uint64            // the last acknowledged revision
}

// edit makes one edit, which changes something.
func (e *editor) edit(ctx context.Context) error {
	e.next = e.now.clone()
	service := fmt.Sprintf("tcp://192.0.2.%d:80", 1+e.random.IntN(6))
	server := netip.AddrPortFrom(e.server, 8000+uint16(e.random.IntN(20))).String()
	weight := uint32(e.random.IntN(65536))
	outcome, err := api.Outcome{}, error(nil)
	servers, exists := e.now[service]
	switch was, has := servers[server]; {
	case !exists:
		e.next[service] = map[string]uint32{}
		outcome, err = e.client.AddService(ctx, api.ServiceConfig{Listen: service, Scheduler: "wrr"}, api.Terms{Why: "crash test"})
	case e.random.IntN(25) == 0:
		delete(e.next, service)
		outcome, err = e.client.RemoveService(ctx, service, api.Terms{})
	case !has:
		e.next[service][server] = weight
		outcome, err = e.client.AddServer(ctx, service, api.ServerConfig{Address: server, Method: "nat", Weight: &weight}, api.Terms{})
	case e.random.IntN(3) == 0:
		delete(e.next[service], server)
		outcome, err = e.client.RemoveServer(ctx, service, server, api.Terms{})
	default:
		if weight == was {
			weight ^= 1
		}
		e.next[service][server] = weight
		outcome, err = e.client.EditServer(ctx, service, server, api.ServerEdit{Weight: &weight}, api.Terms{})
	}
	if err != nil {
		return err
	}
	if !outcome.Changed || outcome.Revision.Number <= e.last {
		return fmt.Errorf("an edit was acknowledged as %+v after revision %d", outcome, e.last)
	}
	e.now, e.last = e.next, outcome.Revision.Number
	e.acked[e.last] = e.now.String()
	return nil
}

// check reads back what was acknowledged since a revision, and takes an edit over
// that was made though nobody was told.
func (e *editor) check(t *testing.T, since uint64) {
	t.Helper()
	for number := since + 1; number <= e.last; number++ {
		e.revision(t, number, e.acked[number])
	}
	configuration, head, err := e.client.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	switch got := desireOf(configuration); {
	case head == e.last && got.String() == e.now.String():
	case head == e.last+1 && got.String() == e.next.String():
		e.now, e.last = e.next, head
		e.acked[head] = got.String()
	default:
		t.Fatalf("after the restart revision %d is the newest, %d was acknowledged last (-acknowledged +there):\n%s",
			head, e.last, cmp.Diff(e.now, got))
	}
}

func (e *editor) revision(t *testing.T, number uint64, want string) {
	t.Helper()
	revision, err := e.client.Revision(t.Context(), number)
	if err != nil {
		t.Fatalf("revision %d was acknowledged: %v", number, err)
	}
	if got := desireOf(revision.Configuration).String(); got != want {
		t.Fatalf("revision %d (-acknowledged +kept):\n%s", number, cmp.Diff(want, got))
	}
}

func desireOf(c api.Configuration) desire {
	d := desire{}
	for _, s := range c.Services {
		d[s.Listen] = map[string]uint32{}
		for _, r := range s.Servers {
			d[s.Listen][r.Address] = *r.Weight
		}
	}
	return d
}

// inKernel reads what the pinned maps hold, without the daemon.
func inKernel(t *testing.T, pins string) desire {
	t.Helper()
	services := readPinned[bpf.KernelService](t, filepath.Join(pins, "services"))
	d, names := desire{}, map[uint32]string{}
	for i, s := range services {
		if s.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) {
			names[uint32(i)] = "tcp://" + netip.AddrPortFrom(bpf.ParseAddress(s.Key.Address, false), bpf.Port(s.Key.Port)).String()
			d[names[uint32(i)]] = map[string]uint32{}
		}
	}
	for _, s := range readPinned[bpf.KernelServer](t, filepath.Join(pins, "servers")) {
		if name, ok := names[s.Service]; ok && s.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) {
			d[name][netip.AddrPortFrom(bpf.ParseAddress(s.Address, false), bpf.Port(s.Port)).String()] = s.Weight
		}
	}
	return d
}

func readPinned[T any](t *testing.T, path string) []T {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	all, err := bpf.ReadArray[T](m)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestKilledDuringEdits kills the daemon at random instants during 1000 edits.
// After each restart every acknowledged revision is there with its content, and
// the kernel holds the newest one. Now and then one copy of the store is cut at
// a random byte before the restart: nothing is lost by that either.
func TestKilledDuringEdits(t *testing.T) {
	t.Parallel()
	const edits = 1000
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	d := startDaemon(t, lab)
	e := &editor{
		random: random, server: lab.Servers[0].Addr4, client: api.NewSocketClient(d.socket), now: desire{}, acked: map[uint64]string{}, last: 1,
	}
	e.next = e.now
	defer e.client.Close()
	kills, cuts := 0, 0
	for len(e.acked) < edits {
		since := e.last
		ctx, cancel := context.WithCancel(t.Context())
		// Drawn here: the source is not for two goroutines. So many edits, so that a slow
		// machine has no more starts, and then an instant of those that follow.
		reach, instant := random.IntN(100), time.Duration(random.IntN(20_000))*time.Microsecond
		reached := make(chan struct{})
		var killer sync.WaitGroup
		killer.Go(func() {
			defer cancel()
			defer d.kill()
			select {
			case <-reached:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(instant): // the test's input
			case <-ctx.Done():
			}
		})
		var err error
		for made := 0; err == nil && len(e.acked) < edits; made++ {
			if made == reach {
				close(reached)
			}
			err = e.edit(ctx)
		}
		cancel()
		killer.Wait()
		kills++
		if problem := (*api.Problem)(nil); errors.As(err, &problem) && problem.Status != 503 {
			t.Fatalf("an edit was refused: %v", err)
		}
		if random.IntN(4) == 0 {
			cuts++
			cut(t, random, d.state)
		}
		d.start(t)
		e.check(t, since)
		if diff := cmp.Diff(e.now, inKernel(t, d.pins)); diff != "" {
			t.Fatalf("after kill %d (-desired +in the kernel):\n%s", kills, diff)
		}
	}
	// All of them, once more, after everything.
	for number, want := range e.acked {
		e.revision(t, number, want)
	}
	drift, err := e.client.Drift(t.Context())
	if err != nil || len(drift.Pending) > 0 || len(drift.Foreign) > 0 {
		t.Errorf("drift %+v, error %v", drift, err)
	}
	if kills < 3 {
		t.Errorf("only %d kills", kills)
	}
	t.Logf("%d edits, %d kills, %d cuts", len(e.acked), kills, cuts)
}

// cut cuts one file of the store at a random byte.
func cut(t *testing.T, random *rand.Rand, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.db"))
	if err != nil || len(files) != 2 {
		t.Fatalf("the store has the files %v, error %v: want two copies", files, err)
	}
	file := files[random.IntN(len(files))]
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, random.Int64N(info.Size())); err != nil {
		t.Fatal(err)
	}
}

// TestTwoWriters has two callers of the API change the same thing against the
// same revision: one wins, the other is told, and no update is lost.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	d := startDaemon(t, lab)
	d.do(t, "service add tcp://192.0.2.10:80 --name web\nserver add web 10.2.0.99:80 --method nat --weight 0")
	const writers, rounds = 4, 15
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			client := api.NewSocketClient(d.socket)
			defer client.Close()
			for won := 0; won < rounds; {
				configuration, revision, err := client.Configuration(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				weight := *configuration.Services[0].Servers[0].Weight + 1
				configuration.Services[0].Servers[0].Weight = &weight
				_, err = client.Apply(t.Context(), configuration, api.Terms{Revision: revision})
				switch problem := (*api.Problem)(nil); {
				case err == nil:
					won++
				case !errors.As(err, &problem) || problem.Status != 412:
					t.Errorf("a writer who came second is told %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	if got := d.server(t, "web", "10.2.0.99:80").Weight; got != writers*rounds {
		t.Errorf("weight %d after %d increments", got, writers*rounds)
	}
}
