package realserver_test

import (
	"testing"

	"github.com/shunt-lb/shunt/realserver"
)

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
