package ipvsadm

import (
	"math"
	"testing"
)

// The columns are print_largenum's: nine wide until a number has more digits.
func TestNumber(t *testing.T) {
	for _, test := range []struct {
		n            uint64
		short, exact string
	}{
		{0, "        0", "        0"},
		{9, "        9", "        9"},
		{9999999, "  9999999", "  9999999"},
		{10000000, " 10000000", " 10000000"},
		{99999999, " 99999999", " 99999999"},
		{100000000, "  100000K", " 100000000"},
		{100000999, "  100000K", " 100000999"},
		{999999999, "  999999K", " 999999999"},
		{1000000000, "    1000M", " 1000000000"},
		{1000999999, "    1000M", " 1000999999"},
		{99999999999, "   99999M", " 99999999999"},
		{100000000000, "     100G", " 100000000000"},
		{99999999999999, "   99999G", " 99999999999999"},
		{100000000000000, "     100T", " 100000000000000"},
		{math.MaxUint64, "18446744T", " 18446744073709551615"},
	} {
		if got := number(test.n, false); got != test.short {
			t.Errorf("number(%d) = %q, want %q", test.n, got, test.short)
		}
		if got := number(test.n, true); got != test.exact {
			t.Errorf("number(%d, exact) = %q, want %q", test.n, got, test.exact)
		}
	}
}
