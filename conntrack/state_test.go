package conntrack_test

import (
	"fmt"
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
		{conntrack.SCTPInit1, 12, "INIT1", false},
		{conntrack.SCTPInit, 13, "INIT", false},
		{conntrack.SCTPCookieSent, 14, "C-SENT", false},
		{conntrack.SCTPCookieReplied, 15, "C-REPLIED", false},
		{conntrack.SCTPCookieWait, 16, "C-WAIT", false},
		{conntrack.SCTPCookie, 17, "COOKIE", false},
		{conntrack.SCTPCookieEchoed, 18, "C-ECHOED", false},
		{conntrack.SCTPEstablished, 19, "ESTABLISHED", true},
		{conntrack.SCTPShutdownSent, 20, "S-SENT", false},
		{conntrack.SCTPShutdownReceived, 21, "S-RECEIVED", false},
		{conntrack.SCTPShutdownAckSent, 22, "S-ACK-SENT", false},
		{conntrack.SCTPRejected, 23, "REJECTED", false},
		{conntrack.SCTPClosed, 24, "CLOSED", false},
		{conntrack.Assured, 25, "ASSURED", false},
	}
	if got := len(conntrack.AllStates()); got != len(tests) {
		t.Errorf("AllStates: %d of them, want %d", got, len(tests))
	}
	// The fast path has no others: its tables are indexed by them.
	if fast := conntrack.States(); len(fast) != 12 || fast[11] != conntrack.UDPNormal {
		t.Errorf("States: %v, want TCP's and UDP's", fast)
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d_%s", tt.number, tt.name), func(t *testing.T) {
			protocol := conntrack.TCP
			if tt.number >= 12 && tt.number < 25 {
				protocol = conntrack.SCTP
			}
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
				got, err := conntrack.ParseStateOf(protocol, name)
				if err != nil || got != tt.state {
					t.Errorf("ParseStateOf(%s, %q): %v, %v, want %v", protocol, name, got, err, tt.state)
				}
				want := tt.state
				if want == conntrack.SCTPEstablished {
					want = conntrack.Established
				}
				if got, err := conntrack.ParseState(name); err != nil || got != want {
					t.Errorf("ParseState(%q): %d, %v, want %d", name, got, err, want)
				}
			}
		})
	}
}

func TestStateUnknown(t *testing.T) {
	if got, want := conntrack.State(26).String(), "STATE-26"; got != want {
		t.Errorf("String: %q, want %q", got, want)
	}
	const list = "want one of NONE, ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, SYNACK, UDP, " +
		"INIT1, INIT, C-SENT, C-REPLIED, C-WAIT, COOKIE, C-ECHOED, S-SENT, S-RECEIVED, S-ACK-SENT, REJECTED, CLOSED, ASSURED"
	for _, name := range []string{"", "STATE-12", "ESTAB", "SYN_RECV "} {
		_, err := conntrack.ParseState(name)
		if err == nil || !strings.HasSuffix(err.Error(), list) {
			t.Errorf("ParseState(%q): error %v, want one that lists each name once", name, err)
		}
		if _, err := conntrack.ParseStateOf(conntrack.SCTP, name); err == nil {
			t.Errorf("ParseStateOf(sctp, %q): no error", name)
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
