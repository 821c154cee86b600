package kernel

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
)

// testFamily is IPVS's number in tests.
const testFamily = 30

// fake returns a driver whose kernel is a function.
func fake(t testing.TB, kernel genltest.Func) *Genetlink {
	g := &Genetlink{socket: newSocket(func() (*genetlink.Conn, error) {
		return genltest.Dial(genltest.ServeFamily(genetlink.Family{ID: testFamily, Name: familyName, Version: 1}, kernel)), nil
	})}
	t.Cleanup(func() { g.Close() })
	return g
}

// TestServicesThatVanish: a list of no servers is either; the kernel is asked.
func TestServicesThatVanish(t *testing.T) {
	skipBigEndian(t)
	services := recorded(t, "service", 0)
	for name, c := range map[string]struct {
		gone int // of the five, -1 for none
		want []string
	}{
		"one is gone":  {1, []string{"sctp://[2001:db8::1]:2905", "udp://192.0.2.1:5060", "fwmark://7", "fwmark6://7"}},
		"none is gone": {-1, []string{"sctp://[2001:db8::1]:2905", "tcp://192.0.2.1:80", "udp://192.0.2.1:5060", "fwmark://7", "fwmark6://7"}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := -1
			g := fake(t, func(m genetlink.Message, n netlink.Message) ([]genetlink.Message, error) {
				switch {
				case m.Header.Command == commandGetServer:
					asked++
					return nil, io.EOF // a list without entries
				case n.Header.Flags&netlink.Dump == 0 && asked == c.gone:
					return nil, genltest.Error(int(syscall.ESRCH))
				case n.Header.Flags&netlink.Dump == 0:
					return []genetlink.Message{{Data: services[asked]}}, nil
				}
				var all []genetlink.Message
				for _, s := range append(services, services[0]) { // one comes twice
					all = append(all, genetlink.Message{Data: s})
				}
				return all, nil
			})
			list, err := g.Services(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range list {
				got = append(got, s.ServiceID.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("services (-want +got):\n%s", diff)
			}
		})
	}
}

// TestInterruptedLists: a list that changed while it was read is read again, but
// not for ever.
func TestInterruptedLists(t *testing.T) {
	skipBigEndian(t)
	answer := recorded(t, "daemon", 0)[0]
	for name, c := range map[string]struct {
		interrupted int
		wantErr     string
	}{
		"thrice":  {3, ""},
		"forever": {1 << 30, "list sync daemons: the list changed each time it was read"},
	} {
		t.Run(name, func(t *testing.T) {
			dumps := 0
			g := &Genetlink{socket: newSocket(func() (*genetlink.Conn, error) {
				return genetlink.NewConn(nltest.Dial(func(requests []netlink.Message) ([]netlink.Message, error) {
					r := requests[0]
					header := netlink.Header{Sequence: r.Header.Sequence, PID: r.Header.PID}
					data := append([]byte{0, 0, 0, 0}, familyAnswer(testFamily)...)
					if r.Header.Type == testFamily {
						if dumps++; dumps <= c.interrupted {
							header.Flags |= netlink.DumpInterrupted
						}
						data = append([]byte{commandGetDaemon, 1, 0, 0}, answer...)
					}
					return []netlink.Message{{Header: header, Data: data}}, nil
				})), nil
			})}
			daemons, err := g.SyncDaemons(context.Background())
			if c.wantErr != "" {
				if err == nil || err.Error() != c.wantErr || dumps != listings {
					t.Errorf("%v after %d lists, want %q after %d", err, dumps, c.wantErr, listings)
				}
				return
			}
			if err != nil || len(daemons) != 1 || dumps != c.interrupted+1 {
				t.Errorf("%v, %v after %d lists", daemons, err, dumps)
			}
		})
	}
}

// familyAnswer is nlctrl's, as far as it is looked at.
func familyAnswer(id uint16) []byte {
	return concat(u16(1, id), text(2, familyName), u32(3, familyVersion))
}

// TestModuleIsLoadedAnew: then the family has another number, for which the kernel
// says what it says of a server that is not there.
func TestModuleIsLoadedAnew(t *testing.T) {
	for name, c := range map[string]struct {
		families []uint16 // that the kernel has, each time it is asked; 0: none
		want     error
		requests int
	}{
		"the server is not there": {[]uint16{30, 30}, ErrNoServer, 1},
		"loaded anew":             {[]uint16{30, 31}, nil, 2},
		"unloaded":                {[]uint16{30, 0}, ErrNotLoaded, 1},
		"never loaded":            {[]uint16{0}, ErrNotLoaded, 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked, requests := 0, 0
			kernel := func(m genetlink.Message, n netlink.Message) ([]genetlink.Message, error) {
				if n.Header.Type == 16 { // GENL_ID_CTRL
					id := c.families[asked]
					if asked++; id == 0 {
						return nil, genltest.Error(int(syscall.ENOENT))
					}
					return []genetlink.Message{{Data: familyAnswer(id)}}, nil
				}
				if requests++; n.Header.Type == 31 {
					return []genetlink.Message{{Data: []byte{0, 0, 0, 0}}}, nil
				}
				return nil, genltest.Error(int(syscall.ENOENT))
			}
			g := &Genetlink{socket: newSocket(func() (*genetlink.Conn, error) { return genltest.Dial(kernel), nil })}
			err := g.DeleteServer(context.Background(), web, at("10.0.0.1:80"))
			if !errors.Is(err, c.want) || requests != c.requests || asked != len(c.families) {
				t.Errorf("%v after %d requests and %d questions, want %v after %d and %d", err, requests, asked, c.want, c.requests, len(c.families))
			}
		})
	}
}

// TestBrokenSocket: an error of the socket is told, and the next call has another.
func TestBrokenSocket(t *testing.T) {
	dialled := 0
	broken := errors.New("the cable is out")
	g := &Genetlink{socket: newSocket(func() (*genetlink.Conn, error) {
		if dialled++; dialled == 2 {
			return nil, fs.ErrPermission
		}
		return genltest.Dial(genltest.ServeFamily(genetlink.Family{ID: testFamily, Name: familyName, Version: 1},
			func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
				if dialled == 1 {
					return nil, broken
				}
				return []genetlink.Message{{Data: []byte{0, 0, 0, 0}}}, nil
			})), nil
	})}
	ctx := context.Background()
	if err := g.Flush(ctx); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "remove all services: ") {
		t.Errorf("broken: %v", err)
	}
	if err := g.Flush(ctx); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "open generic netlink") {
		t.Errorf("not to be opened: %v", err)
	}
	if err := g.Flush(ctx); err != nil || dialled != 3 {
		t.Errorf("in the end: %v after %d sockets", err, dialled)
	}
}

// TestTurns: who waits for his turn gives up with his context, and a closed driver
// says so.
func TestTurns(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	g := fake(t, func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
		entered <- struct{}{}
		<-leave
		return []genetlink.Message{{Data: []byte{0, 0, 0, 0}}}, nil
	})
	first := make(chan error, 1)
	go func() { first <- g.Flush(context.Background()) }()
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error, 1)
	go func() { second <- g.Flush(ctx) }()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who waited: %v", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Errorf("the one whose turn it was: %v", err)
	}
	if err := g.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := g.Flush(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for _, err := range g.Connections(context.Background()) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("connections after Close: %v", err)
		}
	}
}
