package main

import (
	"fmt"
	"time"
)

// topSpan is a piece of a line.
type topSpan struct {
	text string
	look topLook
}

// topLook says how text looks.
type topLook int

// The looks. Without colours, bad and warn are bold, and faint is plain.
const (
	lookPlain topLook = iota
	lookBold
	lookFaint
	lookWarn
	lookBad
	lookHead
	lookSelected
)

// plainSpan is a span of plain text.
func plainSpan(format string, args ...any) topSpan {
	return topSpan{fmt.Sprintf(format, args...), lookPlain}
}

// headLines returns the lines above the table, as many as there is room for: all
// four, or the first and the last.
func (m *topModel) headLines(all bool, now time.Time) [][]topSpan {
	lines := [][]topSpan{m.titleLine(), m.stateLine(), m.trafficLine(), m.alertLine(now)}
	if !all {
		return [][]topSpan{lines[0], lines[3]}
	}
	return lines
}

// titleLine says what is looked at.
func (m *topModel) titleLine() []topSpan {
	s := m.shown.status
	return []topSpan{
		{"shunt top", lookBold},
		plainSpan("%s", m.host),
		{m.shown.at.Format(time.TimeOnly), lookBold},
		plainSpan("every %s", m.interval),
		plainSpan("shuntd %s", s.Version), plainSpan("%s", s.Dataplane), plainSpan("revision %d", s.Revision),
	}
}

// stateLine says what there is, and how full the tables are.
func (m *topModel) stateLine() []topSpan {
	s := m.shown.status
	line := []topSpan{plainSpan("%s", count(s.Services, "service")), plainSpan("%s", count(s.Servers+s.Leased, "server"))}
	if s.Unreachable > 0 {
		line = append(line, topSpan{fmt.Sprintf("%d unreachable", s.Unreachable), lookBad})
	}
	for _, table := range s.Tables {
		if table.Slots == 0 {
			continue
		}
		look := lookPlain
		switch {
		case table.Pressure >= pressureBad:
			look = lookBad
		case table.Pressure >= pressureWarn:
			look = lookWarn
		}
		line = append(line, topSpan{fmt.Sprintf("%s table %.1f%%", table.Family, 100*table.Pressure), look})
	}
	return line
}

// trafficLine adds up all services.
func (m *topModel) trafficLine() []topSpan {
	var active, inactive uint64
	for _, service := range m.shown.services {
		for _, server := range serversOf(service) {
			active += server.Active
			inactive += server.Inactive
		}
	}
	r := m.shown.total()
	return []topSpan{
		plainSpan("act %s", shortNumber(float64(active))), plainSpan("inact %s", shortNumber(float64(inactive))),
		plainSpan("cps %s", shortNumber(r.connections)),
		plainSpan("in %s pps %s b/s", shortNumber(r.packetsIn), shortNumber(r.bitsIn)),
		plainSpan("out %s pps %s b/s", shortNumber(r.packetsOut), shortNumber(r.bitsOut)),
	}
}

// alertLine says what deserves a look, the worst first. If the daemon does not
// answer, it says that and nothing else.
func (m *topModel) alertLine(now time.Time) []topSpan {
	old := now.Sub(m.shown.at)
	if m.err != nil {
		return []topSpan{{fmt.Sprintf("STALE for %s: %v", age(old), m.err), lookBad}}
	}
	if !m.paused && old > 3*m.interval+2*time.Second {
		return []topSpan{{fmt.Sprintf("STALE for %s: waiting for shuntd's answer", age(old)), lookBad}}
	}
	s := m.shown.status
	var line []topSpan
	add := func(look topLook, format string, args ...any) {
		line = append(line, topSpan{fmt.Sprintf(format, args...), look})
	}
	if s.Faults > 0 {
		add(lookBad, "faults %d: a bug, see D", s.Faults)
	}
	if !s.Ready && s.NotReady != "" {
		add(lookBad, "not ready: %s", s.NotReady)
	}
	if len(s.Interfaces) == 0 && attaches(s) {
		add(lookBad, "no interface")
	}
	for _, i := range s.Interfaces {
		if i.Mode == "gone" {
			add(lookBad, "%s is gone", i.Name)
		}
	}
	if n := len(s.Drift.Pending); n > 0 {
		add(lookBad, "drift: %d not repaired", n)
	}
	if n := len(s.Guarding); n > 0 {
		add(lookWarn, "%s on", count(n, "guard"))
	}
	switch drops, reason, most := m.shown.drops(); {
	case drops > 0:
		add(lookWarn, "drops %s/s (%s %s/s)", shortNumber(drops), reason, shortNumber(most))
	default:
		add(lookPlain, "drops %s/s", shortNumber(drops))
	}
	if s.Drift.Found > 0 {
		add(lookPlain, "drift %d repaired", s.Drift.Repaired)
	}
	if s.Foreign > 0 {
		add(lookWarn, "%d foreign", s.Foreign)
	}
	return line
}
