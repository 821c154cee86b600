package keepalived

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"
)

// strtoul reads what text begins with as C's function does: blanks, a sign, which
// turns the number around, and digits, none of which are 0. rest is what follows,
// and negative whether the sign is a minus.
func strtoul(text string) (number uint64, rest string, negative bool) {
	text = strings.TrimLeft(text, " \t\n\v\f\r")
	if text != "" && (text[0] == '-' || text[0] == '+') {
		negative, text = text[0] == '-', text[1:]
	}
	rest = strings.TrimLeft(text, "0123456789")
	for _, digit := range text[:len(text)-len(rest)] {
		high, low := bits.Mul64(number, 10)
		sum, carry := bits.Add64(low, uint64(digit-'0'), 0)
		if high != 0 || carry != 0 {
			return math.MaxUint64, rest, negative
		}
		number = sum
	}
	if negative {
		number = -number
	}
	return number, rest, negative
}

// parseLenient reads a number of a directive that keepalived reads leniently
// outside of its test mode: what is wrong with it is logged, and only what is out of
// range fails. Without digits it is 0 (keepalived: lib/parser.c, read_unsigned_func
// with ignore_error). odd is whether keepalived logs.
func parseLenient(text string, least, most uint64) (number uint32, odd, ok bool) {
	n, rest, negative := strtoul(text)
	return uint32(n), rest != "" || negative, n >= least && n <= most
}

// parseStrict reads a number that keepalived takes only if all of it is one
// (keepalived: read_unsigned_func without ignore_error).
func parseStrict(text string, least, most uint64) (number uint32, ok bool) {
	number, odd, ok := parseLenient(text, least, most)
	return number, ok && !odd
}

// asKeepalived is the reason of a note on a word that keepalived takes for another.
func asKeepalived(word, taken any) string {
	return fmt.Sprintf("%q taken as %v, as keepalived does", word, taken)
}

// parseMark reads a firewall mark; taken says how, if that is not as it stands.
// keepalived takes 0 too, which the kernel has no service of.
func parseMark(word string) (mark uint32, taken, problem string) {
	mark, odd, ok := parseLenient(word, 1, math.MaxUint32)
	if !ok {
		return 0, "", fmt.Sprintf("%q is not a firewall mark: want 1 to %d", word, uint32(math.MaxUint32))
	}
	if odd {
		taken = asKeepalived(word, mark)
	}
	return mark, taken, ""
}

// parsePort reads a port, zeros or nothing for none (keepalived: check_data.c,
// alloc_vs); taken says how, if that is not as it stands.
func parsePort(word string) (port uint16, taken, problem string) {
	if strings.Trim(word, "0") == "" {
		return 0, "", ""
	}
	number, odd, ok := parseLenient(word, 1, math.MaxUint16)
	if !ok {
		return 0, "", fmt.Sprintf("%q is not a port: want 1 to 65535", word)
	}
	if odd {
		taken = asKeepalived(word, number)
	}
	return uint16(number), taken, ""
}

// address reads an address in keepalived's form: a number, never a name. What
// begins with a dash, or else with a slash, is cut off, as the ranges and prefixes
// of groups have it (keepalived: lib/utils.c, inet_stosockaddr); taken says so.
func address(word string) (addr netip.Addr, taken string, ok bool) {
	bare, _, isCut := strings.Cut(word, "-")
	if !isCut {
		bare, _, isCut = strings.Cut(word, "/")
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil || addr.Zone() != "" || addr.Is4() && strings.Contains(word, ":") {
		return netip.Addr{}, "", false
	}
	if isCut {
		taken = asKeepalived(word, addr)
	}
	return addr, taken, true
}
