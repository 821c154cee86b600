package xdp

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
)

func timeoutSeconds(t conntrack.Timeouts) [3]uint32 {
	return [3]uint32{uint32(t.TCP / time.Second), uint32(t.TCPFin / time.Second), uint32(t.UDP / time.Second)}
}

// parseSeconds is the inverse of timeoutSeconds.
func parseSeconds(seconds [3]uint32) conntrack.Timeouts {
	d := func(i int) time.Duration { return time.Duration(seconds[i]) * time.Second }
	return conntrack.Timeouts{TCP: d(0), TCPFin: d(1), UDP: d(2)}
}

// stateTicks are the timeouts by state, as the fast path counts them.
func stateTicks(clock bpf.Clock, t conntrack.Timeouts) (ticks [bpf.KernelConnStateSTATES]uint32) {
	for _, state := range conntrack.States() {
		ticks[state] = clock.Ticks(t.Of(state))
	}
	return ticks
}

func putTimeouts(s *bpf.KernelSettings, clock bpf.Clock, t conntrack.Timeouts) {
	s.Timeout, s.Seconds = stateTicks(clock, t), timeoutSeconds(t)
}

// readTimeouts returns what the timeouts were set from.
func readTimeouts(s *bpf.KernelSettings) conntrack.Timeouts { return parseSeconds(s.Seconds) }

// foundTimeouts returns the timeouts in force; none if the ticks of a state are
// not what the timeouts make them.
func foundTimeouts(s *bpf.KernelSettings, clock bpf.Clock) conntrack.Timeouts {
	t := readTimeouts(s)
	if stateTicks(clock, t) != s.Timeout {
		return conntrack.Timeouts{}
	}
	return t
}

// timeoutSet is what the timeouts map is to hold of a service that has a set: its
// own timeouts, for the rest the director's, and that of its templates.
func timeoutSet(s *settings, clock bpf.Clock, all conntrack.Timeouts) bpf.KernelTimeoutSet {
	set := bpf.KernelTimeoutSet{Ticks: stateTicks(clock, all.Merge(s.timeouts))}
	set.Ticks[bpf.KernelConnStateSTATE_TEMPLATE] = clock.Ticks(s.persistence.Timeout)
	return set
}

// writeTimeouts writes the service's set, if it has one, for the director's
// timeouts. Its servers must not say that there is a set before there is.
func (d *Dataplane) writeTimeouts(svc *service, all conntrack.Timeouts) error {
	if !svc.hasTimeouts() {
		return nil
	}
	set := timeoutSet(&svc.settings, d.plane.Clock, all)
	if err := d.plane.Timeouts.Put(svc.index, &set); err != nil {
		return fmt.Errorf("write timeouts of %s: %w", svc.key, err)
	}
	return nil
}

// rewriteTimeouts writes the service's set for the timeouts in force, and its
// servers, which say whether there is one.
func (d *Dataplane) rewriteTimeouts(svc *service) error {
	all, err := d.timeouts()
	if err != nil {
		return err
	}
	if err := d.writeTimeouts(svc, all); err != nil {
		return err
	}
	return d.writeMembers(svc)
}

// timeouts are the director's.
func (d *Dataplane) timeouts() (conntrack.Timeouts, error) {
	settings, err := d.plane.Settings()
	return readTimeouts(&settings), err
}

// setTimeouts changes the director's timeouts, and with them those that services
// have from there.
func (d *Dataplane) setTimeouts(t conntrack.Timeouts) error {
	var all conntrack.Timeouts
	err := d.plane.ChangeSettings(func(s *bpf.KernelSettings) {
		all = readTimeouts(s).Merge(t)
		putTimeouts(s, d.plane.Clock, all)
	})
	if err != nil {
		return err
	}
	for _, svc := range d.model.services {
		if err := d.writeTimeouts(svc, all); err != nil {
			return err
		}
	}
	return nil
}
