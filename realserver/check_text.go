package realserver

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
)

// ParseStatusRange reads an HTTP status code, or two: 200, or 200-299. Codes are
// numbers from 100 to 599 (RFC 9110 §15).
func ParseStatusRange(text string) (StatusRange, error) {
	first, last, several := strings.Cut(text, "-")
	if !several {
		last = first
	}
	a, err := parseStatus(first)
	b, lastErr := parseStatus(last)
	if err != nil || lastErr != nil || a > b {
		return StatusRange{}, fmt.Errorf("%.40q is not an HTTP status code, nor a range of them: want 200 or 200-299", text)
	}
	return StatusRange{a, b}, nil
}

func parseStatus(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && (len(text) != 3 || n < 100 || n > 599) {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

// String is the reverse of ParseStatusRange.
func (r StatusRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ParseHeader reads a header field: Name: value (RFC 9110 §5).
func ParseHeader(text string) (Header, error) {
	name, value, ok := strings.Cut(text, ":")
	value = strings.Trim(value, " \t")
	switch {
	case !ok || name == "" || strings.ContainsFunc(name, notToken):
		return Header{}, errors.New("it is not a header field: want Name: value") // which may have a secret
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return Header{}, fmt.Errorf("header field %s: its value has control characters", name)
	}
	return Header{Name: textproto.CanonicalMIMEHeaderKey(name), Value: value}, nil
}

// notToken reports whether a character cannot be part of a field's name (RFC 9110 §5.6.2).
func notToken(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// String is the reverse of ParseHeader.
func (h Header) String() string { return h.Name + ": " + h.Value }

// Filled returns the check with the zero value for the terms of its kind where these are
// missing and none is required: of http, grpc and smtp.
func (c Check) Filled() Check {
	switch {
	case c.Kind == CheckHTTP && c.HTTP == nil:
		c.HTTP = &HTTPCheck{}
	case c.Kind == CheckGRPC && c.GRPC == nil:
		c.GRPC = &GRPCCheck{}
	case c.Kind == CheckSMTP && c.SMTP == nil:
		c.SMTP = &SMTPCheck{}
	}
	return c
}
