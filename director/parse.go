package director

import (
	"fmt"
	"net/netip"
	"strings"
)

// WordError is a word of a configuration that cannot be read. It wraps
// ErrInvalid.
type WordError struct {
	Text string // what is wrong with it
	Hint string // what to write instead
}

// Error returns the text and the hint.
func (e *WordError) Error() string { return e.Text + ": " + e.Hint }

// Unwrap returns ErrInvalid.
func (e *WordError) Unwrap() error { return ErrInvalid }

// ParsePrefix reads a network such as 10.0.0.0/8, or an address alone. Bits
// beyond the length are refused: whether the network or the one address is
// meant cannot be known. The error is a *WordError.
func ParsePrefix(s string) (netip.Prefix, error) {
	fail := func(text, hint string) (netip.Prefix, error) { return netip.Prefix{}, &WordError{text, hint} }
	addr, err := netip.ParseAddr(s)
	if addr.Zone() != "" {
		return fail("a network has no zone", "networks do not tell interfaces apart")
	}
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	if err != nil {
		if prefix, err = netip.ParsePrefix(s); err != nil {
			return fail(fmt.Sprintf("%.80q is not a network", s), "want 192.0.2.0/24, 2001:db8::/32 or an address (names are not looked up)")
		}
	}
	switch masked := prefix.Masked(); {
	case prefix.Addr().Is4In6():
		return fail(s+" is an IPv4 address in IPv6 form", "write it as IPv4")
	case masked != prefix:
		return fail(s+" has bits beyond its length", fmt.Sprintf("write %s, or %s for the one address", masked, prefix.Addr()))
	}
	return prefix, nil
}

// Set sets the flag that a word of ipvsadm's names: flag-1 to flag-3, or the
// scheduler's name with -port or -fallback. For an unknown scheduler, which is
// Validate's to refuse, the name is not looked at. The error is a *WordError.
func (f *SchedulerFlags) Set(scheduler Scheduler, word string) error {
	switch word {
	case "flag-1":
		f.Fallback = true
		return nil
	case "flag-2":
		f.Port = true
		return nil
	case "flag-3":
		f.Third = true
		return nil
	}
	if scheduler.Known() && !scheduler.HasFlags() {
		return &WordError{fmt.Sprintf("scheduler %s has no flags", scheduler), "sh and mh have; flag-1 to flag-3 are kept without effect"}
	}
	name, flag, _ := strings.Cut(word, "-")
	switch {
	case scheduler.Known() && name != string(scheduler), flag != "port" && flag != "fallback":
		names := scheduler.FlagNames(SchedulerFlags{Port: true, Fallback: true})
		return &WordError{fmt.Sprintf("unknown flag %.80q", word), fmt.Sprintf("scheduler %s has %s", scheduler, strings.Join(names, " and "))}
	case flag == "port":
		f.Port = true
	default:
		f.Fallback = true
	}
	return nil
}
