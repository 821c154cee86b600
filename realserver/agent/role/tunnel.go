package role

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver"
)

// decapsulation is what runs, or is to: the value of an Object. Sorted, so that equal
// ones have the same text.
type decapsulation struct {
	Interfaces []decapInterface `json:"interfaces"`
	Types      []string         `json:"types"`
	Ports      []uint16         `json:"ports"`
	To         []netip.Prefix   `json:"to"`
	From       []netip.Prefix   `json:"from"` // none: from anywhere
	Virtual    []netip.Prefix   `json:"virtual"`
}

type decapInterface struct {
	Name    string `json:"name"`
	Generic bool   `json:"generic,omitempty"`
}

func (d decapsulation) sorted() decapsulation {
	d.Interfaces = sorted(d.Interfaces, func(a, b decapInterface) int { return strings.Compare(a.Name, b.Name) })
	d.Types, d.Ports = sorted(d.Types, strings.Compare), sorted(d.Ports, cmp.Compare)
	for _, list := range []*[]netip.Prefix{&d.To, &d.From, &d.Virtual} {
		*list = sorted(*list, netip.Prefix.Compare)
	}
	return d
}

// sorted returns a list without what is in it twice.
func sorted[T comparable](all []T, by func(a, b T) int) []T {
	all = append([]T{}, all...)
	slices.SortFunc(all, by)
	return slices.Compact(all)
}

// value is the text of it; "" where nothing runs.
func (d decapsulation) value() string {
	if len(d.Interfaces) == 0 {
		return ""
	}
	text, err := json.Marshal(d.sorted())
	if err != nil {
		panic(fmt.Sprintf("encode %+v: %v", d, err)) // It has nothing that could fail.
	}
	return string(text)
}

// parseDecapsulation reads what value returns.
func parseDecapsulation(value string) (d decapsulation, err error) {
	if value == "" {
		return d, nil
	}
	if err := json.Unmarshal([]byte(value), &d); err != nil {
		return d, fmt.Errorf("read a decapsulation: %w", err)
	}
	_, err = d.config()
	return d, err
}

// config is it for the program.
func (d decapsulation) config() (decap.Config, error) {
	c := decap.Config{Ports: d.Ports, To: d.To, From: d.From, Virtual: d.Virtual}
	for _, name := range d.Types {
		t, err := realserver.ParseTunnelType(name)
		if err != nil {
			return c, fmt.Errorf("read a decapsulation: %w", err)
		}
		c.Types = append(c.Types, decap.Type(t))
	}
	return c, c.Validate()
}

// decapsulationOf is what the program was told.
func decapsulationOf(c decap.Config) decapsulation {
	d := decapsulation{Ports: c.Ports, To: c.To, From: c.From, Virtual: c.Virtual}
	for _, t := range c.Types {
		d.Types = append(d.Types, realserver.TunnelType(t).String())
	}
	return d
}

// running is what is left of what was started; it is the same on all interfaces but after
// a start that was interrupted, when the first one counts.
func running(state decap.State) decapsulation {
	var d decapsulation
	for _, r := range state.Interfaces {
		if r.IsGone {
			continue
		}
		if len(d.Interfaces) == 0 {
			d = decapsulationOf(r.Config)
		}
		d.Interfaces = append(d.Interfaces, decapInterface{r.Name, r.Mode == decap.Generic})
	}
	return d.sorted()
}

// with is what runs with what is wanted. Nothing is taken away, but for outer
// destinations that the host has no more; and who may send is not widened unasked.
func (d decapsulation) with(wanted decapsulation, hostHas func(netip.Addr) bool) decapsulation {
	if len(d.Interfaces) == 0 {
		return wanted.sorted()
	}
	for _, i := range wanted.Interfaces {
		if !slices.ContainsFunc(d.Interfaces, func(r decapInterface) bool { return r.Name == i.Name }) {
			d.Interfaces = append(d.Interfaces, i)
		}
	}
	d.To = slices.DeleteFunc(slices.Clone(d.To), func(p netip.Prefix) bool { return p.IsSingleIP() && !hostHas(p.Addr()) })
	d.Types, d.Ports = append(d.Types, wanted.Types...), append(d.Ports, wanted.Ports...)
	d.To, d.Virtual = append(d.To, wanted.To...), append(d.Virtual, wanted.Virtual...)
	if len(d.From) > 0 {
		d.From = append(d.From, wanted.From...)
	}
	return d.sorted()
}

// judgeTunnels wants packets to be taken out of their tunnels.
func judgeTunnels(r Role, s *snapshot) []Finding {
	if !r.tunnels() {
		return nil
	}
	now := running(s.decap)
	after := now.with(s.wanted, s.has)
	if now.value() == after.value() {
		return nil
	}
	f := Finding{
		Severity: Problem, Subject: "decapsulation", Mend: after.command(r.PinDir),
		changes: []Change{{Object: Object{kindDecap, r.PinDir}, Before: now.value(), After: after.value()}},
	}
	var lacks []string
	for _, i := range after.Interfaces {
		if !slices.ContainsFunc(now.Interfaces, func(r decapInterface) bool { return r.Name == i.Name }) {
			lacks = append(lacks, "on "+i.Name)
		}
	}
	lacks = append(lacks, missing("of ", after.Types, now.Types, strings.Clone)...)
	lacks = append(lacks, missing("for ", after.Virtual, now.Virtual, text)...)
	lacks = append(lacks, missing("to ", after.To, now.To, text)...)
	lacks = append(lacks, missing("from ", after.From, now.From, text)...)
	lacks = append(lacks, missing("at gue's port ", after.Ports, now.Ports, func(p uint16) string { return fmt.Sprint(p) })...)
	switch {
	case len(now.Interfaces) == 0:
		f.Text = "it does not run: packets stay in their tunnels"
	case len(lacks) == 0:
		f.Text = "it is for addresses that this host has no more"
	default:
		f.Text = "it runs, but not " + strings.Join(lacks, ", ")
	}
	return []Finding{f}
}

// missing names what the first list has more.
func missing[T comparable](word string, after, now []T, text func(T) string) []string {
	var all []string
	for _, x := range after {
		if !slices.Contains(now, x) {
			all = append(all, word+text(x))
		}
	}
	return all
}

// command starts it.
func (d decapsulation) command(pinDir string) string {
	words := []string{"shunt-agent decap start"}
	add := func(flag, value string) { words = append(words, "--"+flag, value) }
	for _, i := range d.Interfaces {
		add("interface", i.Name)
	}
	for _, p := range d.Virtual {
		add("vip", text(p))
	}
	for _, p := range d.From {
		add("from", text(p))
	}
	if len(d.Types) < len(decap.Types) {
		for _, t := range d.Types {
			add("type", t)
		}
	}
	if !slices.Equal(d.Ports, []uint16{decap.DefaultPort}) {
		for _, p := range d.Ports {
			add("gue-port", fmt.Sprint(p))
		}
	}
	if pinDir != decap.DefaultPinDir {
		add("pin-dir", pinDir)
	}
	return strings.Join(words, " ")
}
