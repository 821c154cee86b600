package director_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func TestChangeRefused(t *testing.T) {
	absent, stop := mustKey("tcp://192.0.2.99:80"), errors.New("stop")
	addr := netip.MustParseAddrPort
	tests := []struct {
		name string
		do   func(context.Context, *director.Director) (director.Outcome, error)
		kind error
		want string
	}{
		{"add_service_exists", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddService(ctx, by, web())
		}, director.ErrExists, "add service tcp://192.0.2.1:80: exists already"},
		{"add_service_name_taken", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			s := web()
			s.Key = absent
			return d.AddService(ctx, by, s)
		}, director.ErrInvalid, `add service tcp://192.0.2.99:80: services[1] "web": name "web" is that of services[0] already`},
		{"add_service_name_taken_by_a_later_one", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			s := web()
			s.Key = mustKey("tcp://192.0.2.0:80")
			return d.AddService(ctx, by, s)
		}, director.ErrInvalid, `add service tcp://192.0.2.0:80: services[1] "web": name "web" is that of services[0] already`},
		{"add_service_invalid", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddService(ctx, by, director.Service{Key: absent, Servers: []realserver.Server{server("10.0.0.1:81", realserver.DR, 1)}})
		}, director.ErrInvalid, "add service tcp://192.0.2.99:80: service tcp://192.0.2.99:80: servers[0]: port 81: method dr does not rewrite packets, so the port must be the service's (80)"},
		{"edit_service_absent", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditService(ctx, by, absent, func(*director.Service) error { return nil })
		}, director.ErrNotFound, "edit service tcp://192.0.2.99:80: service: not found"},
		{"edit_service_stops", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditService(ctx, by, web().Key, func(s *director.Service) error {
				s.Servers[0].Weight = 77
				return stop
			})
		}, stop, "edit service tcp://192.0.2.1:80: stop"},
		{"edit_service_key", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditService(ctx, by, web().Key, func(s *director.Service) error { s.Key = absent; return nil })
		}, director.ErrInvalid, "edit service tcp://192.0.2.1:80: invalid: the key cannot be changed to tcp://192.0.2.99:80: add that service and remove this one"},
		{"remove_service_absent", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.RemoveService(ctx, by, absent)
		}, director.ErrNotFound, "remove service tcp://192.0.2.99:80: not found"},
		{"add_server_no_service", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddServer(ctx, by, absent, server("10.0.0.1:80", realserver.DR, 1))
		}, director.ErrNotFound, "add server 10.0.0.1:80 to tcp://192.0.2.99:80: service: not found"},
		{"add_server_exists", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddServer(ctx, by, web().Key, server("10.0.0.2:0", realserver.NAT, 1))
		}, director.ErrExists, "add server 10.0.0.2:80 to tcp://192.0.2.1:80: exists already"},
		{"add_server_family", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddServer(ctx, by, web().Key, server("[2001:db8::1]:80", realserver.NAT, 1))
		}, director.ErrInvalid, `add server [2001:db8::1]:80 to tcp://192.0.2.1:80: service "web": servers[3]: 2001:db8::1 is not of the service's address family (192.0.2.1): only tunnels can mix them`},
		{"edit_server_absent", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditServer(ctx, by, web().Key, addr("10.0.0.9:0"), func(*realserver.Server) error { return nil })
		}, director.ErrNotFound, "edit server 10.0.0.9:80 of tcp://192.0.2.1:80: server: not found"},
		{"edit_server_address", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditServer(ctx, by, web().Key, addr("10.0.0.2:80"), func(s *realserver.Server) error {
				s.Address = addr("10.0.0.3:80")
				return nil
			})
		}, director.ErrInvalid, "edit server 10.0.0.2:80 of tcp://192.0.2.1:80: invalid: the address cannot be changed to 10.0.0.3:80: add that server and remove this one"},
		{"edit_server_weight", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditServer(ctx, by, web().Key, addr("10.0.0.2:80"), func(s *realserver.Server) error {
				s.Weight = 65536
				return nil
			})
		}, director.ErrUnsupported, `edit server 10.0.0.2:80 of tcp://192.0.2.1:80: services[0] "web": servers[1]: weight 65536: the xdp data plane has weights up to 65535`},
		{"remove_server_absent", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.RemoveServer(ctx, by, web().Key, addr("10.0.0.9:80"))
		}, director.ErrNotFound, "remove server 10.0.0.9:80 from tcp://192.0.2.1:80: server: not found"},
		{"set_timeouts_negative", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.SetTimeouts(ctx, by, conntrack.Timeouts{UDP: -time.Second})
		}, director.ErrInvalid, "set timeouts: timeouts: udp timeout -1s is out of range: want 1s to 744h (31 days)"},
		{"apply_invalid", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			s := web()
			s.Key = absent
			return d.Apply(ctx, by, director.State{Services: []director.Service{s, web(), dns()}})
		}, director.ErrInvalid, `apply: services[1] "web": name "web" is that of services[0] already`},
		{"adopt_absent", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return adopt(ctx, d, absent)
		}, director.ErrNotFound, "adopt service tcp://192.0.2.99:80: not found"},
		{"adopt_ours", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return adopt(ctx, d, web().Key)
		}, director.ErrExists, "adopt service tcp://192.0.2.1:80: exists already"},
		{"rollback_absent", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.Rollback(ctx, by, 7)
		}, director.ErrNotFound, "rollback to revision 7: revision 7: not found"},
		{"rollback_zero", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.Rollback(ctx, by, 0)
		}, director.ErrNotFound, "rollback to revision 0: revision 0: not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, web(), dns())
			before, applies := r.Head(), r.fake.Applies()
			outcome, err := tt.do(t.Context(), r.Director)
			if !errors.Is(err, tt.kind) || err.Error() != tt.want {
				t.Errorf("error\n %v, want\n %s", err, tt.want)
			}
			if outcome.Changed {
				t.Errorf("outcome %+v, want none", outcome)
			}
			if got := r.fake.Applies(); got != applies {
				t.Errorf("the data plane was asked %d times", got-applies)
			}
			if diff := cmp.Diff(before, r.Head(), cmpNetip); diff != "" {
				t.Errorf("desired changed (-before +after):\n%s", diff)
			}
			want(t, "events", nil, r.news()) // whoever asked is told
		})
	}
}
