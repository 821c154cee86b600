package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
)

// Severity says how much a finding matters.
type Severity string

// The severities.
const (
	OK      Severity = "ok"      // looked at and found in order
	Info    Severity = "info"    // worth knowing; nothing has to be done
	Warning Severity = "warning" // some packets are lost, slow or not treated as meant
	Error   Severity = "error"   // it does not work like this
	Unknown Severity = "unknown" // the check could not look
)

// rank orders severities by urgency.
func (s Severity) rank() int {
	return slices.Index([]Severity{Error, Warning, Unknown, Info, OK}, s)
}

// Compare orders severities, the most urgent first.
func (s Severity) Compare(o Severity) int { return cmp.Compare(s.rank(), o.rank()) }

// Finding is one answer of a check.
type Finding struct {
	Check    string // the check's stable id, such as rp-filter
	Title    string // what the check looks at, in words
	Subject  string // whom it is about: an interface, a server, a rule; empty: the host
	Severity Severity
	What     string // what was found
	Why      string // why it matters; empty if Severity is OK
	Fix      string // what to paste into a shell, or to do; empty if there is nothing to do
}

// Host is what to inspect.
type Host struct {
	// Root is put before /proc and /sys; "" is the host itself.
	Root string
	// Interfaces are those the data plane is or will be attached to.
	Interfaces []string
	// Services as desired, with their servers.
	Services []director.Service
	// PinDir is where programs and maps are pinned. XDP programs whose links are
	// pinned there are our own.
	PinDir string
	// MaxConnections4 and MaxConnections6 are what the connection tables are
	// sized for.
	MaxConnections4, MaxConnections6 uint64
	// Generic is whether generic mode was asked for.
	Generic bool
	// Dataplane is xdp or ipvs, empty for xdp; checks that are about the other one
	// alone are left out.
	Dataplane string
	// TunnelSources and LocalAddresses are what outer headers of tunnels come from, and
	// what stands in for clients' addresses with method fullnat; of xdp.
	TunnelSources, LocalAddresses []netip.Prefix
	// NIC asks the network cards; nil asks them by ethtool's ioctl.
	NIC NIC
}

// Inspect runs all checks that apply and returns their findings in the order of
// the table, at least one for each check. The error is the context's, or says
// that the kernel could not be asked at all.
//
// It looks at the network namespace of the calling thread: a caller that changed
// its namespace has locked the thread.
func Inspect(ctx context.Context, h Host) ([]Finding, error) {
	i, err := newInspection(ctx, h)
	if err != nil {
		return nil, err
	}
	defer i.close()
	var findings []Finding
	for _, c := range Checks() {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("inspect the host: %w", err)
		}
		if c.Only != "" && c.Only != cmp.Or(i.Dataplane, director.PlaneXDP) {
			continue
		}
		findings = append(findings, c.findings(i)...)
	}
	return findings, nil
}

// Bypassed returns what a firewall of the host does with packets to the services
// that XDP would take past it: the findings of the checks nftables and iptables,
// but those that are in order. Services that come from the stack may live by what
// Inspect has no reason to speak of, so that rules that translate or mark packets
// that may be theirs are named too, and those that are not understood. It looks
// where Inspect does.
func Bypassed(ctx context.Context, h Host) ([]Finding, error) {
	i, err := newInspection(ctx, h)
	if err != nil {
		return nil, err
	}
	defer i.close()
	i.strict = true
	var findings []Finding
	for _, c := range Checks() {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("inspect the host: %w", err)
		}
		if c.ID == "nftables" || c.ID == "iptables" {
			findings = append(findings, c.findings(i)...)
		}
	}
	return slices.DeleteFunc(findings, func(f Finding) bool { return f.Severity == OK }), nil
}

// findings runs the check and returns what it reports, or one finding that says
// that all is well.
func (c Check) findings(i *inspection) []Finding {
	r := &report{check: c}
	c.run(i, r)
	if len(r.findings) == 0 {
		return []Finding{{Check: c.ID, Title: c.Title, Severity: OK, What: c.Good}}
	}
	slices.SortStableFunc(r.findings, func(a, b Finding) int { return a.Severity.Compare(b.Severity) })
	return r.findings
}

// report collects a check's findings.
type report struct {
	check    Check
	findings []Finding
}

func (r *report) add(s Severity, subject, what, why, fix string) {
	r.findings = append(r.findings, Finding{r.check.ID, r.check.Title, subject, s, what, why, fix})
}

// unknown reports that the check could not look at something. What is not there
// to be asked about (an old kernel, a driver without the knob) is no finding.
func (r *report) unknown(subject string, err error) {
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) {
		return
	}
	fix := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		fix = "sudo shuntd doctor"
	}
	r.add(Unknown, subject, fmt.Sprintf("could not look: %v", err), "whether this is in order is not known", fix)
}

// newInspection opens what the checks ask by, on the calling thread.
func newInspection(ctx context.Context, h Host) (*inspection, error) {
	route, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("inspect the host: open a netlink socket: %w", err)
	}
	i := &inspection{Host: h, ctx: ctx, route: route, byName: map[string]netlink.Link{}}
	if i.NIC == nil {
		card, err := openEthtool()
		if err != nil {
			route.Close()
			return nil, fmt.Errorf("inspect the host: %w", err)
		}
		i.NIC, i.closeNIC = card, card.close
	}
	all, err := route.LinkList()
	if err != nil {
		i.close()
		return nil, fmt.Errorf("inspect the host: list the interfaces: %w", err)
	}
	for _, l := range all {
		i.byName[l.Attrs().Name] = l
	}
	return i, nil
}
