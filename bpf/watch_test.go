package bpf_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// watch has the program tell its news, and returns a reader of them.
func watch(t *testing.T, f *bpftest.Fixture) *bpf.NewsReader {
	t.Helper()
	r, err := f.Plane.OpenNews()
	if err != nil {
		t.Fatal(err)
	}
	f.ChangeSettings(func(s *bpf.KernelSettings) { s.Watching = 1 })
	t.Cleanup(func() {
		f.ChangeSettings(func(s *bpf.KernelSettings) { s.Watching = 0 })
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

var newsNames = map[bpf.KernelNewsKind]string{
	bpf.KernelNewsKindNEWS_OPENED: "opened", bpf.KernelNewsKindNEWS_ESTABLISHED: "established",
	bpf.KernelNewsKindNEWS_CLOSED: "closed",
}

// nextNews reads n news; one that does not come fails the test.
func nextNews(t *testing.T, r *bpf.NewsReader, n int) (all []bpf.News) {
	t.Helper()
	late := time.AfterFunc(10*time.Second, func() { r.Close() })
	defer late.Stop()
	for range n {
		news, err := r.Read()
		if err != nil {
			t.Fatalf("after %d of %d news: %v", len(all), n, err)
		}
		all = append(all, news)
	}
	return all
}

// diffNews compares the next news with what is wanted, as "opened 198.51.100.7:40000".
func diffNews(t *testing.T, r *bpf.NewsReader, want ...string) {
	t.Helper()
	var got []string
	for _, news := range nextNews(t, r, len(want)) {
		e := news.Slot.Entry()
		if e.Reply || e.Busy || e.Template {
			t.Errorf("news of %+v", e)
		}
		got = append(got, newsNames[news.Kind]+" "+e.Source.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("news (-want +got):\n%s", diff)
	}
}

// All steps of a connection's life are told, in their order and once each, whatever
// ends it.
func TestNews(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachMethod(t, func(t *testing.T, a family, method bpf.KernelMethod) {
		s := newScene(t, f, a, bpftest.TCP, method)
		s.run(t, s.request()) // nobody watches yet
		s.remove(t, s.request())
		r := watch(t, f)
		client := a.client.String()

		s.establish(t)
		diffNews(t, r, "opened "+client, "established "+client)
		fin := s.request()
		fin.Flags, fin.Seq, fin.Ack = "FA", 1001, 5001
		s.run(t, fin)
		if method == nat {
			back := s.reply()
			back.Flags, back.Seq, back.Ack = "FA", 5001, 1002
			s.run(t, back)
		}
		f.AgeBy(bpftest.Timeouts[bpf.KernelConnStateSTATE_TIME_WAIT] + 2*time.Second)
		if removed := f.Sweep(); removed != 1 {
			t.Fatalf("%d swept, want 1", removed)
		}
		diffNews(t, r, "closed "+client)

		s.run(t, s.request())
		s.remove(t, s.request())
		diffNews(t, r, "opened "+client, "closed "+client)

		// One that has expired ends when a packet meets it, and another begins.
		s.run(t, s.request())
		f.AgeBy(bpftest.Timeouts[bpf.KernelConnStateSTATE_SYN_RECV] + 2*time.Second)
		s.run(t, s.request())
		diffNews(t, r, "opened "+client, "closed "+client, "opened "+client)

		// So does one that is over when its client uses the port anew.
		f.SetState(bpf.KernelConnStateSTATE_TIME_WAIT)
		s.run(t, s.request())
		diffNews(t, r, "closed "+client, "opened "+client)
	})
}

// eachMethod runs the test for both families, with replies that are seen and without.
func eachMethod(t *testing.T, test func(*testing.T, family, bpf.KernelMethod)) {
	for _, a := range families {
		t.Run(a.name+"/nat", func(t *testing.T) { test(t, a, nat) })
		t.Run(a.name+"/dr", func(t *testing.T) { test(t, a, dr) })
	}
}

// run sends the packet, which must go on.
func (s *scene) run(t *testing.T, p bpftest.Packet) {
	t.Helper()
	if got := s.Run(p.Bytes()); got.Action != bpftest.TX {
		t.Fatalf("%s packet from %s: %v %v", p.Flags, p.From, got.Action, s.Events())
	}
}

// An eviction is told before what it makes room for; templates and one-packet UDP
// are not told of, nor what is only asked for.
func TestNewsOfOthers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		t.Run(a.name+"/eviction", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, dr)
			f.Events()
			r := watch(t, f)
			open := map[netip.AddrPort]bool{}
			opened, evicted := 0, uint64(0)
			for i := range 400 {
				s.run(t, s.requestOf(i))
				events := f.Events()
				evicted += events["evicted"]
				for _, news := range nextNews(t, r, 1+int(events["evicted"])) {
					e := news.Slot.Entry()
					if is := news.Kind == bpf.KernelNewsKindNEWS_OPENED; is == open[e.Source] {
						t.Fatalf("%s %s, open before: %v", newsNames[news.Kind], e.Source, open[e.Source])
					} else if is {
						opened++
					}
					open[e.Source] = !open[e.Source]
				}
			}
			if opened != 400 || evicted == 0 {
				t.Errorf("%d opened, %d evicted", opened, evicted)
			}
			for _, e := range f.Entries() {
				if !open[e.Source] {
					t.Errorf("%s is there, but was told to be closed", e.Source)
				}
				delete(open, e.Source)
			}
			for source, is := range open {
				if is {
					t.Errorf("%s is gone and was not told of", source)
				}
			}
		})
		t.Run(a.name+"/none", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			s.service.Flags = bpf.KernelServiceFlagsSERVICE_ONE_PACKET
			f.Apply(s.service)
			r := watch(t, f)
			s.run(t, s.request())
			s.service.Flags = 0
			f.Apply(s.service)
			other := s.request()
			other.From = s.other
			if err := f.Plane.Explain(a.isV6(), &bpf.KernelExplainArgs{
				Source: bpf.Address(s.client.Addr()), SourcePort: bpf.Port(s.client.Port()),
				Destination: bpf.Address(s.virtual.Addr()), DestinationPort: bpf.Port(s.virtual.Port()), Protocol: s.protocol,
			}); err != nil {
				t.Fatal(err)
			}
			s.run(t, other)
			diffNews(t, r, "opened "+s.other.String())
		})
	}
}

// A ring that is full loses news and says how many; later ones come again.
func TestNewsLost(t *testing.T) {
	const many = 12_000 // the ring has room for 10922
	f := bpftest.New(t, bpftest.Options{Connections: many})
	s := newScene(t, f, families[0], bpftest.TCP, dr)
	r := watch(t, f)
	entries := make([]bpf.KernelLoadEntry, many)
	for i := range entries {
		p := s.request()
		p.From = netip.AddrPortFrom(p.From.Addr(), uint16(1024+i))
		entries[i] = s.loaded(p, s.service.Servers[0], uint8(bpf.KernelConnStateSTATE_ESTABLISHED), time.Minute)
	}
	if err := f.Plane.Load(false, entries); err != nil {
		t.Fatal(err)
	}
	lost, err := r.Lost()
	if err != nil || lost == 0 || lost >= many {
		t.Fatalf("%d of %d lost, %v", lost, many, err)
	}
	if events := f.Events(); events["news-lost"] != lost {
		t.Errorf("%d lost, events %v", lost, events)
	}
	for i, news := range nextNews(t, r, int(many-lost)) {
		if want := uint16(1024 + i); news.Slot.Entry().Source.Port() != want {
			t.Fatalf("news %d is of %s, want port %d", i, news.Slot.Entry().Source, want)
		}
		if last := i == int(many-lost)-1; news.Pending == last {
			t.Fatalf("pending after %d of %d: %v", i+1, many-lost, news.Pending)
		}
	}
	s.run(t, s.request())
	diffNews(t, r, fmt.Sprintf("opened %s", s.client))
}
