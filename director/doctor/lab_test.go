package doctor_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
	"github.com/shunt-lb/shunt/realserver"
)

// bed is a director in a lab, and what the doctor is told of it. A test makes a
// condition on it, sees the finding, runs the fix, and sees the finding gone.
type bed struct {
	*directortest.Lab
	*testing.T

	host doctor.Host
}

// newBed starts a lab with one server in it and a service of each method.
func newBed(t *testing.T, shape directortest.Shape) *bed {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Shape: shape, Servers: 1})
	b := &bed{Lab: lab, T: t, host: doctor.Host{
		Interfaces: lab.DirectorLinks, PinDir: directortest.Bpffs(t), Dataplane: "xdp",
		MaxConnections4: 1 << 20, MaxConnections6: 1 << 18,
	}}
	b.serve("web", "tcp://192.0.2.10:80", lab.Servers[0].Addr4.String()+":8080", realserver.NAT)
	b.serve("web6", "tcp://[2001:db8::10]:80", "["+lab.Servers[0].Addr6.String()+"]:8080", realserver.NAT)
	return b
}

// serve adds a service with one server and returns it.
func (b *bed) serve(name, key, server string, method realserver.Method) *director.Service {
	b.Helper()
	k, err := director.ParseServiceKey(key)
	if err != nil {
		b.Fatal(err)
	}
	b.host.Services = append(b.host.Services, director.Service{
		Key: k, Name: name, Scheduler: director.RoundRobin, VIP: director.VIPManaged,
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort(server), Method: method, Weight: 1}},
	})
	return &b.host.Services[len(b.host.Services)-1]
}

// inspect runs the doctor in the director.
func (b *bed) inspect() []doctor.Finding {
	b.Helper()
	return inspectIn(b.T, b.Director, b.host)
}

func inspectIn(t *testing.T, n *directortest.Namespace, h doctor.Host) []doctor.Finding {
	t.Helper()
	var findings []doctor.Finding
	err := n.Do(func() (err error) {
		findings, err = doctor.Inspect(t.Context(), h)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// of returns a check's findings about a subject, passed ones left out; an empty
// subject is any.
func of(findings []doctor.Finding, check, subject string) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool {
		return f.Check != check || f.Severity == doctor.OK || subject != "" && f.Subject != subject
	})
}

// wants inspects and returns the one finding of a check about a subject, which
// must have the severity and the words.
func (b *bed) wants(check, subject string, s doctor.Severity, words string) doctor.Finding {
	b.Helper()
	return single(b.T, of(b.inspect(), check, subject), check, s, words)
}

func single(t *testing.T, found []doctor.Finding, check string, s doctor.Severity, words string) doctor.Finding {
	t.Helper()
	if len(found) != 1 {
		t.Fatalf("%s: %d findings, want 1: %+v", check, len(found), found)
	}
	f := found[0]
	if f.Severity != s || !strings.Contains(f.What, words) {
		t.Errorf("%s: %s: %q, want %s: ...%s...", check, f.Severity, f.What, s, words)
	}
	if f.Title == "" || f.Why == "" {
		t.Errorf("%s: no title or no reason: %+v", check, f)
	}
	return f
}

// wantsNone inspects and sees that a check has nothing to say about a subject.
func (b *bed) wantsNone(check, subject string) {
	b.Helper()
	if found := of(b.inspect(), check, subject); len(found) > 0 {
		b.Errorf("%s: want nothing found, have %+v", check, found)
	}
}

// shell runs a command in a namespace as an operator would.
func shell(t *testing.T, n *directortest.Namespace, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := n.Command(ctx, "sh", "-ec", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// cures sees the finding, runs its fix as it is written, and sees it gone.
func (b *bed) cures(check, subject string, s doctor.Severity, words string) doctor.Finding {
	b.Helper()
	f := b.wants(check, subject, s, words)
	if f.Fix == "" {
		b.Fatalf("%s: no fix: %+v", check, f)
	}
	shell(b.T, b.Director, f.Fix)
	b.becomes(check, subject, false) // an address of IPv6 has its route a moment later (net/ipv6/addrconf.c, addrconf_dad_work)
	return f
}

// becomes inspects until a check has, or has not, something to say: the kernel
// needs a moment to find out about neighbours.
func (b *bed) becomes(check, subject string, found bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	for ; ; time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			b.Fatalf("%s about %s: still not found %v", check, subject, found)
		}
		if (len(of(b.inspect(), check, subject)) > 0) == found {
			return
		}
	}
}

func (b *bed) sysctl(name, value string) {
	b.Helper()
	if err := b.Director.Sysctl(name, value); err != nil {
		b.Fatal(err)
	}
}

// TestHealthyHost sees that the doctor leaves a lab alone that works. What stays
// is what the lab is: a virtual machine, and interfaces that are veths.
func TestHealthyHost(t *testing.T) {
	for _, shape := range []directortest.Shape{directortest.OneArmed, directortest.TwoArmed} {
		t.Run(string(shape), func(t *testing.T) {
			b := newBed(t, shape)
			for _, f := range b.inspect() {
				t.Logf("%+v", f)
				if f.Severity == doctor.Error || f.Severity == doctor.Warning || f.Severity == doctor.Unknown {
					t.Errorf("%s: %s: %s %s", f.Check, f.Severity, f.Subject, f.What)
				}
			}
		})
	}
}
