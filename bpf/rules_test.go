package bpf_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// One-packet services schedule each datagram by itself and leave nothing behind.
func TestOnePacket(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, method := range []bpf.KernelMethod{nat, dr, local} {
			t.Run(fmt.Sprint(a.name, "/", method), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.UDP, method, method)
				s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
				f.Apply(s.service)
				p := s.request()
				for i := range 5 {
					server := s.service.Servers[i%2] // rr
					want := sent(routed(p))
					events := map[string]uint64(nil)
					switch method {
					case nat:
						want = sent(forwarded(p, server.Address))
					case local:
						want, events = passed(p.Bytes()), one("local")
					}
					run(t, f, p.Bytes(), want, events)
				}
				diffEntries(t, f)
				for i, server := range s.service.Servers {
					if got := f.Load(server); got != (bpf.KernelServerLoad{}) {
						t.Errorf("load of server %d: %+v", i, got)
					}
					if got, want := f.Traffic(server).Connections, uint64(3-i); got != want {
						t.Errorf("server %d: %d connections counted, want %d", i, got, want)
					}
				}
			})
		}
		t.Run(a.name+"/persistent", func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.UDP, nat, nat)
			s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
			f.Apply(s.service)
			for host := range 4 {
				p := s.requestFrom(0, host)
				run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
			}
			s.diffTemplates(t)
			if got := len(f.Entries()); got != 1 {
				t.Errorf("%d entries, want the template alone", got)
			}
		})
		t.Run(a.name+"/tcp", func(t *testing.T) {
			// The flag is UDP's: kernel, ip_vs_core.c, ip_vs_schedule.
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
			f.Apply(s.service)
			f.Run(s.request().Bytes())
			diffEntries(t, f, s.both(synReceived, false)...)
		})
	}
}

// An overload that one-packet connections bring about ends with them.
func TestOnePacketOverload(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := newScene(t, f, families[0], bpftest.UDP, nat)
	s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
	s.service.Servers[0].Upper = 1
	f.Apply(s.service)
	for range 3 {
		run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
	}
	if got := f.Load(s.service.Servers[0]).Unfit; got != 0 {
		t.Error("overloaded without a connection")
	}
}

// With sloppy TCP a connection may begin with any segment but a reset; its state is
// what the kernel's table has from NONE.
func TestSloppyTCP(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, method := range []bpf.KernelMethod{nat, dr} {
			for flags, want := range map[string]string{
				"S": "SR", "SA": "SR", "A": "ES", "PA": "ES", "F": "CL", "FA": "CL", "": "CL", "P": "CL", "R": "", "RA": "", "RS": "",
			} {
				t.Run(fmt.Sprint(a.name, "/", method, "/", flags), func(t *testing.T) {
					s := newScene(t, f, a, bpftest.TCP, method)
					p := s.request()
					p.Flags = flags
					if want != "SR" { // with the rule off
						run(t, f, p.Bytes(), dropped, one("midstream"))
					}
					s.service.Flags |= bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP
					f.Apply(s.service)
					if want == "" {
						run(t, f, p.Bytes(), dropped, one("midstream"))
						diffEntries(t, f)
						return
					}
					if got := f.Run(p.Bytes()); got.Action != bpftest.TX {
						t.Fatal(got.Action, f.Events())
					}
					// Not proven: anybody can send an ACK.
					state := uint8(slices.Index(stateNames, want))
					if method == nat {
						diffEntries(t, f, s.both(state, false)...)
					} else {
						diffEntries(t, f, s.entry(state, false))
					}
					diffLoads(t, f, s.service.Servers...)
				})
			}
		}
	}
}

// Which connection a client's SYN may take the place of, by conn_reuse_mode
// (kernel: ip_vs_core.c, is_new_conn_expected).
func TestReuse(t *testing.T) {
	const (
		never   = bpf.KernelServiceFlagsSERVICE_REUSE_NEVER
		finWait = bpf.KernelServiceFlagsSERVICE_REUSE_FIN_WAIT
	)
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range bpftest.Sample(families) {
		for _, method := range []bpf.KernelMethod{nat, dr} {
			for mode, over := range map[bpf.KernelServiceFlags][]string{
				0: {"TW", "CL"}, never: nil, finWait: {"TW", "CL", "FW"},
			} {
				for _, controlled := range []bool{false, true} {
					t.Run(fmt.Sprint(a.name, "/", method, "/", mode, "/", controlled), func(t *testing.T) {
						over := slices.Clone(over)
						if method == nat {
							over = slices.DeleteFunc(over, func(s string) bool { return s == "FW" })
						}
						if controlled {
							over = nil
						}
						for state, name := range stateNames {
							s := newScene(t, f, a, bpftest.TCP, method, method)
							s.service.Flags |= mode
							f.Apply(s.service)
							f.Run(s.request().Bytes())
							first := f.Entries()[0].Server
							f.SetState(bpf.KernelConnState(state))
							if controlled {
								f.EditRecipes(func(recipe uint64) uint64 {
									return recipe | 1<<bpf.KernelRecipeLayoutRECIPE_CONTROLLED
								})
							}
							f.Run(s.request().Bytes())
							anew := f.Entries()[0].Server != first // rr's turn
							if want := slices.Contains(over, name); anew != want {
								t.Errorf("a SYN in %s: scheduled anew: %v, want %v", name, anew, want)
							}
							diffLoads(t, f, s.service.Servers...)
						}
					})
				}
			}
		}
	}
}

// What ends a connection at a SYN is the flag, whatever comes with it (kernel:
// ip_vs_core.c, is_new_conn); what may begin one is not (tcp_conn_schedule).
func TestResetWithSYNEndsOldConnection(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		s := newScene(t, f, a, bpftest.TCP, nat)
		f.Run(s.request().Bytes())
		f.SetState(bpf.KernelConnStateSTATE_TIME_WAIT)
		p := s.request()
		p.Flags = "RS"
		run(t, f, p.Bytes(), dropped, one("midstream"))
		diffEntries(t, f)
		diffLoads(t, f, s.service.Servers...)
	}
}

// A SYN leaves a draining server, whatever has become of its connection, whether it
// is under a template, and whatever conn_reuse_mode says: the strict rule.
func TestSYNLeavesDrainingServer(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range bpftest.Sample(families) {
		for _, method := range []bpf.KernelMethod{nat, dr} {
			for _, mode := range []bpf.KernelServiceFlags{0, bpf.KernelServiceFlagsSERVICE_REUSE_NEVER} {
				for _, persistent := range []bool{false, true} {
					t.Run(fmt.Sprint(a.name, "/", method, "/", mode, "/", persistent), func(t *testing.T) {
						for state, name := range stateNames {
							s := newScene(t, f, a, bpftest.TCP, method, method)
							if persistent {
								s = newPersistentScene(t, f, a, bpftest.TCP, method, method)
							}
							s.service.Flags |= mode
							f.Apply(s.service)
							first, second := s.service.Servers[0], s.service.Servers[1]
							s.connectionOf(t, s.request())
							f.SetState(bpf.KernelConnState(state))
							first.Draining = true
							f.Apply(s.service)
							if want := explain(t, f, s.request()); want.Server != second.Index {
								t.Errorf("a SYN in %s: explained as server %d's, want %d's", name, want.Server, second.Index)
							}
							if got := s.connectionOf(t, s.request()); got != second {
								t.Errorf("a SYN in %s: on server %d, want %d", name, got.Index, second.Index)
							}
							diffLoads(t, f, first, second)
							diffPairs(t, f)
						}
					})
				}
			}
		}
	}
	t.Run("established", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			first := s.service.Servers[0]
			first.Draining = true
			f.Apply(s.service)
			p := s.request()
			if s.protocol == bpftest.TCP {
				p.Flags = "A"
			}
			if got := s.connectionOf(t, p); got != first {
				t.Errorf("its packets go on to server %d, want %d", got.Index, first.Index)
			}
		})
	})
}

// expire_nodest_conn: connections of a server that is gone end by the next packet
// or the next sweep; a SYN leaves a server of weight 0.
func TestExpireNodest(t *testing.T) {
	const (
		nodest = bpf.KernelServiceFlagsSERVICE_EXPIRE_NODEST
		never  = bpf.KernelServiceFlagsSERVICE_REUSE_NEVER
	)
	f := bpftest.New(t, bpftest.Options{})
	again := func(s *scene) bpftest.Packet {
		p := s.request()
		if s.protocol == bpftest.TCP {
			p.Flags = "A"
		}
		return p
	}
	t.Run("packet", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			for _, flags := range []bpf.KernelServiceFlags{0, nodest} {
				s := newScene(t, f, s.family, s.protocol, nat, nat)
				s.service.Flags = flags
				f.Apply(s.service)
				s.establish(t)
				old := s.service.Servers[0]
				s.service.Servers = s.service.Servers[1:]
				f.Apply(s.service)
				p, second := again(s), s.service.Servers[0]
				switch {
				case flags == 0:
					run(t, f, p.Bytes(), dropped, one("server-removed"))
				case s.protocol == bpftest.TCP:
					run(t, f, p.Bytes(), dropped, one("midstream"))
					diffEntries(t, f)
				default:
					run(t, f, p.Bytes(), sent(forwarded(p, second.Address)), nil)
				}
				diffLoads(t, f, old, second)
				diffPairs(t, f)
			}
		})
	})
	t.Run("reply", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			s.service.Flags = nodest
			f.Apply(s.service)
			s.establish(t)
			s.service.Servers = nil
			f.Apply(s.service)
			reply := s.reply()
			if s.protocol == bpftest.TCP {
				reply.Flags = "A"
			}
			run(t, f, reply.Bytes(), dropped, one("server-removed"))
			if got := len(f.Entries()); got != 2 {
				t.Errorf("%d entries are left, want 2: only a client's packet ends it", got)
			}
		})
	})
	t.Run("sweep", func(t *testing.T) {
		for _, a := range families {
			for _, flags := range []bpf.KernelServiceFlags{0, nodest} {
				s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
				s.service.Flags |= flags
				f.Apply(s.service)
				for network := range 4 {
					s.connectionOf(t, s.requestFrom(network, 1))
				}
				servers := slices.Clone(s.service.Servers)
				s.service.Servers = s.service.Servers[1:]
				f.Apply(s.service)
				want := uint32(0)
				if flags == nodest {
					want = 2 // of 4 connections
				}
				if got := f.Sweep(); got != want {
					t.Errorf("%s, flags %d: %d connections removed, want %d", a.name, flags, got, want)
				}
				f.Sweep() // a template whose connections went with this sweep waits for the next
				f.Sweep()
				for _, e := range f.Entries() {
					if gone := servers[0].Index; e.Server == gone && flags == nodest {
						t.Errorf("%s: left: %+v", a.name, e)
					}
				}
				diffLoads(t, f, servers...)
				if got := f.Load(servers[0]).Templates; got != 2-int64(want) {
					t.Errorf("%s, flags %d: %d templates counted of the server removed", a.name, flags, got)
				}
			}
		}
	})
	t.Run("weight 0", func(t *testing.T) {
		for _, a := range families {
			for flags, anew := range map[bpf.KernelServiceFlags]bool{0: false, nodest: true, nodest | never: true} {
				s := newScene(t, f, a, bpftest.TCP, dr, dr)
				s.service.Flags = flags
				f.Apply(s.service)
				s.establish(t)
				s.service.Servers[0].Weight = 0
				f.Apply(s.service)
				p := again(s)
				run(t, f, p.Bytes(), sent(routed(p)), nil) // an established connection's packets go on
				f.Run(s.request().Bytes())
				want := s.service.Servers[0]
				if anew {
					want = s.service.Servers[1]
				}
				if got := f.Entries()[0].Server; got != want.Index {
					t.Errorf("%s, flags %d: a SYN is on server %d, want %d", a.name, flags, got, want.Index)
				}
			}
		}
	})
}
