package main

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// shortNumber writes a number in four characters at most: 0, 0.3, 42, 1.2k,
// 999M; a dash if it is not known.
func shortNumber(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v > 0 && v < 0.05:
		return "<0.1"
	case v < 9.95 && v != math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v < 999.5:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	units := "kMGTPE"
	v /= 1000
	for v >= 999.5 && len(units) > 1 {
		v /= 1000
		units = units[1:]
	}
	decimals := 0
	if v < 9.95 {
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + units[:1]
}

// shorten cuts the middle out of a text that is too long: what tells addresses
// apart is at their ends.
func shorten(text string, room int) string {
	runes := []rune(text)
	switch {
	case len(runes) <= room:
		return text
	case room <= 0:
		return ""
	}
	tail := room / 2
	return string(runes[:room-tail-1]) + "…" + string(runes[len(runes)-tail:])
}

// cut cuts the end off a text that is too long.
func cut(text string, room int) string {
	if utf8.RuneCountInString(text) <= room {
		return text
	}
	return string([]rune(text)[:max(room-1, 0)]) + "…"
}

// pad fills a text up with blanks, on the left if it is aligned right.
func pad(text string, room int, right bool) string {
	blanks := strings.Repeat(" ", max(room-utf8.RuneCountInString(text), 0))
	if right {
		return blanks + text
	}
	return text + blanks
}

// printable takes out of a text what a terminal could take for a command.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

// naturally orders texts with the numbers in them as numbers: web2 before
// web10, 10.0.0.2 before 10.0.0.11.
func naturally(a, b string) int {
	for a != "" && b != "" {
		numberA, restA := leadingNumber(a)
		numberB, restB := leadingNumber(b)
		if numberA != "" && numberB != "" {
			if len(numberA) != len(numberB) {
				return len(numberA) - len(numberB)
			}
			if order := strings.Compare(numberA, numberB); order != 0 {
				return order
			}
			a, b = restA, restB
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

// leadingNumber splits off the digits at the beginning, without leading zeros
// but for a last one.
func leadingNumber(text string) (number, rest string) {
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	number, rest = text[:end], text[end:]
	for len(number) > 1 && number[0] == '0' {
		number = number[1:]
	}
	return number, rest
}

// age writes how long ago something was, in whole seconds: 12s, 3m5s.
func age(d time.Duration) string { return max(d, 0).Truncate(time.Second).String() }
