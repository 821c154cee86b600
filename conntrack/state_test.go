package conntrack_test

import (
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
)

func TestState(t *testing.T) {
	tests := []struct {
		state  conntrack.State
		number uint8
		name   string
		active bool
	}{
		{conntrack.None, 0, "NONE", false},
		{conntrack.Established, 1, "ESTABLISHED", true},
		{conntrack.SynSent, 2, "SYN_SENT", true},
		{conntrack.SynRecv, 3, "SYN_RECV", true},
		{conntrack.FinWait, 4, "FIN_WAIT", false},
		{conntrack.TimeWait, 5, "TIME_WAIT", false},
		{conntrack.Close, 6, "CLOSE", false},
		{conntrack.CloseWait, 7, "CLOSE_WAIT", false},
		{conntrack.LastAck, 8, "LAST_ACK", false},
		{conntrack.Listen, 9, "LISTEN", false},
		{conntrack.SynAck, 10, "SYNACK", true},
		{conntrack.UDPNormal, 11, "UDP", false},
	}
	if got := len(conntrack.States()); got != len(tests) {
		t.Errorf("States: %d of them, want %d", got, len(tests))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := uint8(tt.state); got != tt.number {
				t.Errorf("number %d, want %d", got, tt.number)
			}
			if got := tt.state.String(); got != tt.name {
				t.Errorf("String: %q, want %q", got, tt.name)
			}
			if got := tt.state.Active(); got != tt.active {
				t.Errorf("Active: %t, want %t", got, tt.active)
			}
			for _, name := range []string{tt.name, strings.ToLower(tt.name)} {
				got, err := conntrack.ParseState(name)
				if err != nil || got != tt.state {
					t.Errorf("ParseState(%q): %v, %v, want %v", name, got, err, tt.state)
				}
			}
		})
	}
}

func TestStateUnknown(t *testing.T) {
	if got, want := conntrack.State(12).String(), "STATE-12"; got != want {
		t.Errorf("String: %q, want %q", got, want)
	}
	for _, name := range []string{"", "STATE-12", "ESTAB", "SYN_RECV "} {
		_, err := conntrack.ParseState(name)
		if err == nil || !strings.Contains(err.Error(), "want one of NONE, ESTABLISHED") {
			t.Errorf("ParseState(%q): error %v, want one that lists the states", name, err)
		}
	}
}

func TestProtocol(t *testing.T) {
	for name, p := range map[string]conntrack.Protocol{"tcp": 6, "udp": 17, "sctp": 132} {
		if got := p.String(); got != name {
			t.Errorf("String: %q, want %q", got, name)
		}
		if got, err := conntrack.ParseProtocol(strings.ToUpper(name)); err != nil || got != p {
			t.Errorf("ParseProtocol(%q): %v, %v", strings.ToUpper(name), got, err)
		}
	}
	if got, want := conntrack.Protocol(47).String(), "proto-47"; got != want {
		t.Errorf("String: %q, want %q", got, want)
	}
	if _, err := conntrack.ParseProtocol("icmp"); err == nil {
		t.Error("ParseProtocol(icmp): no error")
	}
}
