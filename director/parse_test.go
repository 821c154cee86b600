package director_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director"
)

func TestParsePrefix(t *testing.T) {
	for _, test := range []struct{ text, want, problem string }{
		{"10.0.0.0/8", "10.0.0.0/8", ""},
		{"192.0.2.7", "192.0.2.7/32", ""},
		{"2001:db8::/32", "2001:db8::/32", ""},
		{"2001:db8::1", "2001:db8::1/128", ""},
		{"0.0.0.0/0", "0.0.0.0/0", ""},
		{"10.0.0.1/8", "", "10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8, or 10.0.0.1 for the one address"},
		{"2001:db8::1/32", "", "2001:db8::1/32 has bits beyond its length: write 2001:db8::/32, or 2001:db8::1 for the one address"},
		{"fe80::1%eth0", "", "a network has no zone: networks do not tell interfaces apart"},
		{"::ffff:10.0.0.1", "", "::ffff:10.0.0.1 is an IPv4 address in IPv6 form: write it as IPv4"},
		{"10.0.0.0/33", "", `"10.0.0.0/33" is not a network: want 192.0.2.0/24, 2001:db8::/32 or an address (names are not looked up)`},
		{"", "", `"" is not a network: want 192.0.2.0/24, 2001:db8::/32 or an address (names are not looked up)`},
	} {
		t.Run(test.text, func(t *testing.T) {
			got, err := director.ParsePrefix(test.text)
			if test.problem != "" {
				if err == nil || err.Error() != test.problem || !errors.Is(err, director.ErrInvalid) || got.IsValid() {
					t.Errorf("%v, error %q, want %q", got, err, test.problem)
				}
				return
			}
			if err != nil || got != netip.MustParsePrefix(test.want) {
				t.Errorf("%v, %v, want %s", got, err, test.want)
			}
		})
	}
}

func TestSetFlag(t *testing.T) {
	for _, test := range []struct {
		scheduler director.Scheduler
		word      string
		want      director.SchedulerFlags
		problem   string
	}{
		{"sh", "sh-port", director.SchedulerFlags{Port: true}, ""},
		{"mh", "mh-fallback", director.SchedulerFlags{Fallback: true}, ""},
		{"best", "sh-port", director.SchedulerFlags{Port: true}, ""}, // the scheduler is refused, not its flag
		{"sh", "mh-port", director.SchedulerFlags{}, `unknown flag "mh-port": scheduler sh has sh-fallback and sh-port`},
		{"mh", "mh-fast", director.SchedulerFlags{}, `unknown flag "mh-fast": scheduler mh has mh-fallback and mh-port`},
		{"mh", "port", director.SchedulerFlags{}, `unknown flag "port": scheduler mh has mh-fallback and mh-port`},
		{"rr", "sh-port", director.SchedulerFlags{}, "scheduler rr has no flags: sh and mh have; flag-1 to flag-3 are kept without effect"},
		{"rr", "flag-1", director.SchedulerFlags{Fallback: true}, ""},
		{"rr", "flag-2", director.SchedulerFlags{Port: true}, ""},
		{"rr", "flag-3", director.SchedulerFlags{Third: true}, ""},
		{"sh", "flag-1", director.SchedulerFlags{Fallback: true}, ""},
		{"mh", "flag-2", director.SchedulerFlags{Port: true}, ""},
		{"mh", "flag-3", director.SchedulerFlags{Third: true}, ""},
		{"mh", "flag-4", director.SchedulerFlags{}, `unknown flag "flag-4": scheduler mh has mh-fallback and mh-port`},
	} {
		t.Run(string(test.scheduler)+"_"+test.word, func(t *testing.T) {
			var got director.SchedulerFlags
			err := got.Set(test.scheduler, test.word)
			problem := ""
			if err != nil {
				problem = err.Error()
			}
			if got != test.want || problem != test.problem {
				t.Errorf("%+v, %q, want %+v, %q", got, problem, test.want, test.problem)
			}
		})
	}
	// A flag that is set stays when another one is.
	got := director.SchedulerFlags{Port: true}
	if err := got.Set(director.Maglev, "mh-fallback"); err != nil || got != (director.SchedulerFlags{Port: true, Fallback: true}) {
		t.Errorf("%+v, %v", got, err)
	}
}
