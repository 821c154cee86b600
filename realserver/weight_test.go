package realserver_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/realserver"
)

// The kernel has all 32 bits of a threshold (keepalived writes them; ipvsadm's
// options end at half of that).
func TestThresholds(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "2147483648": 1 << 31, "4294967295": 1<<32 - 1} {
		if got, err := realserver.ParseThreshold(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"4294967296", "-1", "many", ""} {
		want := fmt.Sprintf("%q is not a threshold: want a number of connections, 0 to 4294967295", text)
		if _, err := realserver.ParseThreshold(text); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
	s := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Upper: 1<<32 - 1, Lower: 1<<32 - 1}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseWeight(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "1": 1, "65535": 65535} {
		if got, err := realserver.ParseWeight(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"2147483648": `"2147483648" is not a weight: want 0 to 2147483647`,
		"4294967297": `"4294967297" is not a weight: want 0 to 2147483647`,
		"-1":         `"-1" is not a weight: want 0 to 2147483647`,
		"heavy":      `"heavy" is not a weight: want 0 to 2147483647`,
		"":           `"" is not a weight: want 0 to 2147483647`,
	} {
		if _, err := realserver.ParseWeight(text); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}
