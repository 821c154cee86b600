package ipvs

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// The flag is set at the upper threshold and goes below the lower one, or below three
// quarters of the upper one where there is none.
func TestOverloaded(t *testing.T) {
	for _, test := range []struct {
		upper, lower uint32
		counts       []uint32 // readings one after another
		want         []bool
	}{
		{0, 0, []uint32{0, 1000}, []bool{false, false}},
		{10, 5, []uint32{9, 10, 9, 5, 4, 9, 11}, []bool{false, true, true, true, false, false, true}},
		{10, 0, []uint32{7, 10, 8, 7, 9}, []bool{false, true, true, false, false}},
		{4, 0, []uint32{4, 3, 2}, []bool{true, true, false}},
	} {
		before := false
		for i, n := range test.counts {
			s := kernel.ServerEntry{Server: kernel.Server{Upper: test.upper, Lower: test.lower}, Active: n / 2, Inactive: n - n/2}
			if before = isOverloaded(&s, before); before != test.want[i] {
				t.Errorf("upper %d, lower %d, %d connections after %v: %t", test.upper, test.lower, n, test.counts[:i], before)
			}
		}
	}
}

// The kernel's refusals are told by what they mean there, and are what the director
// branches on.
func TestExplain(t *testing.T) {
	refusal := func(op kernel.Op, errno syscall.Errno) error { return &kernel.Error{Op: op, Object: "x", Errno: errno} }
	web := entry("tcp://192.0.2.1:80", 32, "10.0.0.1:80")
	maglev := web
	maglev.Scheduler, maglev.Servers = "mh", make([]kernel.ServerEntry, maxMaglev)
	v4, v6 := entry("tcp://192.0.2.1:80", 32, "10.0.0.1:80").Servers[0].Server, entry("tcp://[::1]:80", 1, "[::2]:80").Servers[0].Server
	v6tunnel := v6
	v6tunnel.Method = kernel.Tunnelling
	other := errors.New("the socket broke")
	for _, test := range []struct {
		name string
		got  error
		kind error
		want string
	}{
		{"nothing", explain(nil), nil, ""},
		{"other", explain(other), other, "the socket broke"},
		{"reason", explain(&kernel.Error{Op: kernel.OpNewService, Errno: syscall.EINVAL, Reason: "the address is missing"}), director.ErrInvalid, "the address is missing"},
		{"errno", explain(refusal(kernel.OpZero, syscall.EIO)), syscall.EIO, "zero counters x: input/output error"},
		{"no_service", explain(refusal(kernel.OpZero, syscall.ESRCH)), director.ErrNotFound, "there is no such service"},
		{"no_scheduler", explainService(refusal(kernel.OpNewService, syscall.ENOENT), kernel.Service{Scheduler: "twos"}), director.ErrNoScheduler, "the kernel has no scheduler twos: modprobe ip_vs_twos"},
		{
			"no_engine", explainService(refusal(kernel.OpSetService, syscall.ENOENT), kernel.Service{Scheduler: "rr", Engine: "sip"}), director.ErrNoScheduler,
			"the kernel has no scheduler rr, or no persistence engine sip: modprobe -a ip_vs_rr ip_vs_pe_sip",
		},
		{"service_invalid", explainService(refusal(kernel.OpNewService, syscall.EINVAL), kernel.Service{}), director.ErrInvalid, kernel.ErrInvalid.Error()},
		{"range", explainServer(refusal(kernel.OpNewServer, syscall.ERANGE), &web, v4), director.ErrInvalid, kernel.ErrRange.Error()},
		{"mixed", explainServer(refusal(kernel.OpNewServer, syscall.EINVAL), &web, v6), director.ErrInvalid, "::2 is not of the service's address family: only tunnels can mix them"},
		{
			"mixed_with_sync", explainServer(refusal(kernel.OpNewServer, syscall.EINVAL), &web, v6tunnel), director.ErrInvalid,
			"a sync daemon runs, which does not know servers of another address family than their service's: stop it first",
		},
		{"mh", explainServer(refusal(kernel.OpNewServer, syscall.EINVAL), &maglev, v4), director.ErrInvalid, "the scheduler mh has 4093 servers at most"},
		{
			"address", explainServer(refusal(kernel.OpNewServer, syscall.EINVAL), &web, v4), director.ErrInvalid,
			"the kernel takes the address 10.0.0.1 neither for a unicast one nor for one of this host, or the server for invalid otherwise",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !errors.Is(test.got, test.kind) || test.want != fmtError(test.got) {
				t.Errorf("error %v, want %q that is %v", test.got, test.want, test.kind)
			}
		})
	}
	if err := fmt.Errorf("apply: %w", explain(refusal(kernel.OpNewServer, syscall.EEXIST))); !isSurprise(err) {
		t.Errorf("%v is no surprise", err)
	}
}
