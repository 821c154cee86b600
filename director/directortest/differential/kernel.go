package differential

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// working is held by the run that works; others wait, or let time pass. So a run
// takes no longer than it must, and what lives for seconds lives through it.
var working sync.Mutex

// slowest is how long a run may take without what lives longest that is short
// (see Pause) or shortest that is long being in doubt.
const slowest = 45 * time.Second

// settle is longer than the kernel's delayed work takes, with ticks of 10 ms.
const settle = 30 * time.Millisecond

// kernelRun is one case on the kernel.
type kernelRun struct {
	*ipvs.Kernel
	t       testing.TB
	c       Case
	service ipvs.Service
	flows   Flows
}

// attempts is how often a case is run that takes too long.
const attempts = 3

// Kernel runs the case on the kernel and returns it with the kernel's answers. Run
// as many at the same time as there is memory for: most only wait.
func Kernel(t testing.TB, c Case) Case {
	t.Helper()
	for range attempts {
		if answered, took := onKernel(t, c); took <= slowest {
			return answered
		}
	}
	t.Fatalf("%s took longer than %s on the kernel, %d times: timeouts of the script may have passed meanwhile", c.Name, slowest, attempts)
	return c
}

// onKernel runs the case once and says how long it took.
func onKernel(t testing.TB, c Case) (Case, time.Duration) {
	t.Helper()
	working.Lock()
	defer working.Unlock()
	r := &kernelRun{Kernel: ipvs.New(t), t: t, c: c, flows: NewFlows()}
	defer r.Close()
	r.setUp()
	start := time.Now()
	events := make([]Event, len(c.Events))
	for i, e := range c.Events {
		e.Answer = r.run(e)
		r.flows.Note(e)
		events[i] = e
	}
	c.Events, c.Kernel = events, ipvs.Release(t)
	return c, time.Since(start)
}

func (r *kernelRun) setUp() {
	r.t.Helper()
	s := r.c.Service()
	r.service = ipvs.Service{
		Protocol: s.Key.Protocol, Address: s.Key.Address, Scheduler: s.Scheduler, Flags: s.Flags,
		Persistence: s.Persistence, OnePacket: s.OnePacket,
	}
	if r.c.Many {
		r.service.Mark = 1
	}
	r.AddService(r.service)
	number := map[bool]int{true: 1}
	r.Set("sloppy_tcp", number[r.c.SloppyTCP])
	r.Set("expire_nodest_conn", number[r.c.ExpireNoDest])
	r.Set("expire_quiescent_template", number[r.c.ExpireQuiescent])
	r.Set("conn_reuse_mode", r.c.ReuseMode)
}

// run does what the event says and returns the answer.
func (r *kernelRun) run(e Event) string {
	r.t.Helper()
	switch e.Verb {
	case Add:
		r.AddServer(r.service, r.c.Server(e))
	case Edit:
		r.EditServer(r.service, r.c.Server(e))
	case Remove:
		r.RemoveServer(r.service, r.c.Server(e))
		if r.c.ExpireNoDest {
			time.Sleep(settle) // kernel: ip_vs_ctl.c, expire_nodest_conn_work
		}
	case Send, Reply:
		return r.send(e)
	case Wait:
		working.Unlock()
		time.Sleep(e.Wait)
		working.Lock()
	case Count:
		return r.count()
	}
	return ""
}

func (r *kernelRun) send(e Event) string {
	r.t.Helper()
	packet, ok := r.flows.Packet(r.c, e)
	if !ok {
		return ""
	}
	// What a packet replaces goes at the next tick (kernel: ip_vs_conn.c,
	// ip_vs_conn_expire_now).
	if r.flows.Knows(e) && (r.c.ExpireNoDest || strings.Contains(e.Flags, "S")) {
		defer time.Sleep(settle)
	}
	frames := r.Send(packet)
	if e.Verb == Reply {
		return ""
	}
	for _, f := range frames {
		if answer := r.answer(f); answer != "" {
			return answer
		}
	}
	return Nothing
}

// answer says what a frame that the kernel sent for a client's packet means; a
// reset to the client comes from the stack, that IPVS left the packet to.
func (r *kernelRun) answer(f ipvs.Frame) string {
	for n := range servers {
		if f.To == ipvs.ServerMAC(r.c.ServerAddress(n).Addr()) {
			return strconv.Itoa(n)
		}
	}
	if f.To == bpftest.ClientMAC && f.IsPortUnreachable() {
		return Refused
	}
	return ""
}

// servers is more than a case has.
const servers = 64

func (r *kernelRun) count() string {
	r.t.Helper()
	var list []string
	for _, count := range r.Counts(r.service) {
		n := -1
		for i := range servers {
			if r.c.ServerAddress(i) == count.Server {
				n = i
			}
		}
		list = append(list, fmt.Sprintf("%d:%d/%d/%d", n, count.Active, count.Inactive, count.Templates))
	}
	return strings.Join(list, " ")
}
