package ipvsadm

import (
	"math"
	"strconv"
	"strings"
)

// space is what C's isspace takes for white space.
const space = " \t\n\v\f\r"

// parseNumber reads a decimal number from least to most as strtol does: after
// white space and a sign, to the text's end (ipvsadm.c, string_to_number).
func parseNumber(text string, least, most int64) (int64, bool) {
	number, rest, found := leadingNumber(text)
	return number, found && rest == "" && least <= number && number <= most
}

// leadingNumber reads the decimal number that text begins with, as strtol does,
// and returns what follows it. A number beyond 64 bits is not found.
func leadingNumber(text string) (number int64, rest string, found bool) {
	digits, rest := splitNumber(text)
	number, err := strconv.ParseInt(digits, 10, 64)
	return number, rest, err == nil
}

// clampedNumber is leadingNumber where only the number matters: 0 if there is
// none, the nearest one of 64 bits if it is beyond those.
func clampedNumber(text string) int64 {
	digits, _ := splitNumber(text)
	number, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case err == nil || strings.Trim(digits, "+-") == "":
		return number
	case strings.HasPrefix(digits, "-"):
		return math.MinInt64
	default:
		return math.MaxInt64
	}
}

// splitNumber parts the sign and the digits that follow white space from what
// comes after them.
func splitNumber(text string) (digits, rest string) {
	text = strings.TrimLeft(text, space)
	end := 0
	if text != "" && strings.ContainsRune("+-", rune(text[0])) {
		end = 1
	}
	for end < len(text) && '0' <= text[end] && text[end] <= '9' {
		end++
	}
	return text[:end], text[end:]
}

// parseAnyBase reads all of a number without a sign, decimal, octal or
// hexadecimal as in C.
func parseAnyBase(text string) (uint64, bool) {
	base := 10
	switch {
	case text == "" || text[0] < '0' || text[0] > '9':
		return 0, false
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		text, base = text[2:], 16
	case text[0] == '0':
		base = 8
	}
	number, err := strconv.ParseUint(text, base, 64)
	return number, err == nil
}
