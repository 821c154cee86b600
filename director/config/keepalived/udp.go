package keepalived

import (
	"fmt"
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

func (v *virtual) udpDirective(c *checker, n *node) bool {
	exchange := func() *realserver.ExchangeCheck {
		if c.check.Exchange == nil {
			c.check.Exchange = &realserver.ExchangeCheck{}
		}
		return c.check.Exchange
	}
	switch n.word(0) {
	case "payload":
		octets, ok := hexOctets(n.args())
		var payload []byte
		for _, o := range octets {
			payload = append(payload, o.value)
			ok = ok && o.mask == 0xff
		}
		if !ok || len(payload) == 0 {
			v.note(translation.Differs, n, "want hexadecimal digits: keepalived sends random octets, Shunt none")
			break
		}
		exchange().Send = payload
	case "require_reply":
		exchange().Expect = "^"
		octets, ok := hexOctets(n.args())
		if !ok {
			v.note(translation.Differs, n, "want hexadecimal digits, and X for any: any answer will do")
			break
		}
		var written int
		exchange().Expect, written = expression(octets)
		if written < len(octets) {
			v.note(translation.Differs, n, fmt.Sprintf("the first %d of the %d octets are compared: those above 7f are none that Go's regular expressions can name", written, len(octets)))
		}
	case "min_reply_length", "max_reply_length":
		v.note(translation.Differs, n, "the length of an answer is not looked at")
	default:
		return false
	}
	return true
}

// octet is one of a text of octets; the mask's bits are those that count.
type octet struct{ value, mask byte }

// hexOctets reads octets of one or two digits; an X is any digit (keepalived:
// lib/parser.c, read_hex_str).
func hexOctets(words []string) (octets []octet, ok bool) {
	for _, word := range words {
		for _, part := range strings.Fields(word) {
			for part != "" {
				size := min(2, len(part))
				var o octet
				for _, digit := range []byte(strings.ToLower(part[:size])) {
					i := strings.IndexByte("0123456789abcdefx", digit)
					if i < 0 {
						return nil, false
					}
					o = octet{o.value<<4 | byte(i&0xf), o.mask<<4 | 0xf}
					if digit == 'x' {
						o.value, o.mask = o.value&0xf0, o.mask&0xf0
					}
				}
				if size == 1 {
					o.mask |= 0xf0
				}
				octets, part = append(octets, o), part[size:]
			}
		}
	}
	return octets, true
}

// expression returns an expression for answers that begin with the octets, as far as
// those are characters by themselves, and how many that are.
func expression(octets []octet) (text string, written int) {
	text = "^"
	for i, o := range octets {
		switch {
		case (o.value|^o.mask)&0x80 != 0:
			return text, i
		case o.mask == 0xff:
			text += fmt.Sprintf(`\x%02x`, o.value)
		case o.mask == 0xf0:
			text += fmt.Sprintf(`[\x%02x-\x%02x]`, o.value, o.value|0xf)
		}
	}
	return text, len(octets)
}
