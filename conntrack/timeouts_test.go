package conntrack_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
)

func TestTimeoutsOf(t *testing.T) {
	want := map[conntrack.State]time.Duration{
		conntrack.None: 2, conntrack.Established: 900, conntrack.SynSent: 120, conntrack.SynRecv: 60,
		conntrack.FinWait: 120, conntrack.TimeWait: 120, conntrack.Close: 10, conntrack.CloseWait: 60,
		conntrack.LastAck: 30, conntrack.Listen: 120, conntrack.SynAck: 120, conntrack.UDPNormal: 300,
		conntrack.SCTPInit1: 4, conntrack.SCTPInit: 61, conntrack.SCTPCookieSent: 61, conntrack.SCTPCookieReplied: 61,
		conntrack.SCTPCookieWait: 61, conntrack.SCTPCookie: 61, conntrack.SCTPCookieEchoed: 61, conntrack.SCTPEstablished: 900,
		conntrack.SCTPShutdownSent: 61, conntrack.SCTPShutdownReceived: 61, conntrack.SCTPShutdownAckSent: 61,
		conntrack.SCTPRejected: 4, conntrack.SCTPClosed: 61,
	}
	for _, state := range conntrack.AllStates() {
		if got := conntrack.DefaultTimeouts().Of(state); got != want[state]*time.Second {
			t.Errorf("%v: %v, want %v", state, got, want[state]*time.Second)
		}
	}
	if got := conntrack.DefaultTimeouts().Of(26); got != 0 {
		t.Errorf("unknown state: %v, want 0", got)
	}
	set := conntrack.Timeouts{TCP: 1 * time.Second, TCPFin: 2 * time.Second, UDP: 3 * time.Second}
	changed := map[conntrack.State]time.Duration{
		conntrack.Established: 1, conntrack.FinWait: 2, conntrack.UDPNormal: 3,
	}
	for _, state := range conntrack.AllStates() {
		seconds, ok := changed[state]
		if !ok {
			seconds = want[state]
		}
		if got := set.Of(state); got != seconds*time.Second {
			t.Errorf("%v after setting: %v, want %v", state, got, seconds*time.Second)
		}
	}
}

func TestTimeoutsMerge(t *testing.T) {
	base := conntrack.DefaultTimeouts()
	got := base.Merge(conntrack.Timeouts{TCPFin: time.Minute})
	want := conntrack.Timeouts{TCP: 15 * time.Minute, TCPFin: time.Minute, UDP: 5 * time.Minute}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("one set (-want +got):\n%s", diff)
	}
	all := conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Minute, UDP: time.Second}
	if diff := cmp.Diff(all, base.Merge(all)); diff != "" {
		t.Errorf("all set (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(base, base.Merge(conntrack.Timeouts{})); diff != "" {
		t.Errorf("none set (-want +got):\n%s", diff)
	}
}

func TestTimeoutsWithin(t *testing.T) {
	for _, tt := range []struct{ in, want conntrack.Timeouts }{
		{conntrack.Timeouts{}, conntrack.Timeouts{}},
		{conntrack.DefaultTimeouts(), conntrack.DefaultTimeouts()},
		{
			conntrack.Timeouts{TCP: 99 * 24 * time.Hour, TCPFin: -time.Hour, UDP: 1500 * time.Millisecond},
			conntrack.Timeouts{TCP: conntrack.MaxTimeout, TCPFin: conntrack.MinTimeout, UDP: time.Second},
		},
	} {
		got := tt.in.Within()
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestTimeoutsValidate(t *testing.T) {
	valid := conntrack.Timeouts{TCP: conntrack.MaxTimeout, TCPFin: conntrack.MinTimeout, UDP: time.Minute}
	tests := []struct {
		name string
		set  conntrack.Timeouts
		want string
	}{
		{"zero", conntrack.Timeouts{TCPFin: time.Second, UDP: time.Second}, "tcp timeout 0s is out of range: want 1s to 744h (31 days)"},
		{"negative", valid.Merge(conntrack.Timeouts{TCPFin: -time.Second}), "tcp-fin timeout -1s is out of range"},
		{"too_long", valid.Merge(conntrack.Timeouts{UDP: conntrack.MaxTimeout + time.Second}), "udp timeout 744h0m1s is out of range"},
		{"fraction", valid.Merge(conntrack.Timeouts{UDP: 1500 * time.Millisecond}), "udp timeout 1.5s: want whole seconds"},
		{"every_one_is_named", conntrack.Timeouts{}, "tcp timeout 0s is out of range: want 1s to 744h (31 days)\ntcp-fin timeout 0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.set.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	for _, set := range []conntrack.Timeouts{valid, conntrack.DefaultTimeouts()} {
		if err := set.Validate(); err != nil {
			t.Errorf("%v: %v", set, err)
		}
	}
}

func TestTimeoutsString(t *testing.T) {
	if got, want := conntrack.DefaultTimeouts().String(), "tcp 15m0s, tcp-fin 2m0s, udp 5m0s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
