//go:build linux && amd64

package kernel_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mqliang/libipvs"

	"github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// TestGuestWhyNotLibipvsAlone holds what decision 0004 says against libipvs: a
// case that fails has been mended there, and the decision may be looked at again.
func TestGuestWhyNotLibipvsAlone(t *testing.T) {
	ipvs.Guest(t)
	f := newFixture(t, kernel.DriverGenetlink)
	var handle libipvs.IPVSHandle
	f.must(f.namespace.Do(func() (err error) {
		handle, err = libipvs.NewIPVSHandle(libipvs.IPVSHandleParams{})
		return err
	}))
	sip := with(plain(address(kernel.UDP, "192.0.2.1:5060"), "rr"), func(s *kernel.Service) {
		s.Flags, s.Timeout, s.Engine = kernel.FlagPersistent, 60e9, "sip"
	})
	gue := kernel.Server{Address: at("10.0.0.1:5060"), Weight: 1, Method: kernel.Tunnelling, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 5555}}
	f.must(f.NewService(f.ctx, sip))
	f.must(f.NewServer(f.ctx, sip.ServiceID, gue))

	services, err := handle.ListServices()
	f.must(err)
	if services[0].PEName != "" {
		t.Error("libipvs reads engines")
	}
	servers, err := handle.ListDestinations(services[0])
	f.must(err)
	servers[0].Weight = 7
	f.must(handle.UpdateDestination(services[0], servers[0]))
	if diff := cmp.Diff([]string{"UDP 192.0.2.1:5060 rr persistent 60 pe sip", "-> 10.0.0.1:5060 Tunnel ipip 7 0 0"}, f.judge("--tun-info")); diff != "" {
		t.Errorf("a change of the weight resets gue to ipip (-want +got):\n%s", diff)
	}
	services[0].SchedName = "wlc"
	f.must(handle.UpdateService(services[0]))
	if diff := cmp.Diff([]string{"UDP 192.0.2.1:5060 wlc persistent 60"}, f.judge()[:1]); diff != "" {
		t.Errorf("a change of the scheduler drops the engine (-want +got):\n%s", diff)
	}

	err = handle.NewService(services[0])
	if got := fmt.Sprint(err); got != "NlMsgerr file exists" {
		t.Errorf("a refusal is %q", got)
	}
	for name, call := range map[string]func(){
		"port 0": func() {
			_ = handle.DelService(&libipvs.Service{AddressFamily: 2, Protocol: 6, Address: net.IP{192, 0, 2, 1}})
		},
		"no family": func() {
			_ = handle.DelDestination(services[0], &libipvs.Destination{Address: net.IP{10, 0, 0, 1}, Port: 1})
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}
