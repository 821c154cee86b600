package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver"
)

// ErrNoInterface is of a name that no interface of the host has.
var ErrNoInterface = errors.New("no such interface")

// Decap is what packets are taken out of their tunnels. The zero value of a field is
// documented with it.
type Decap struct {
	// PinDir is where what outlives the process is kept; empty: decap.DefaultPinDir.
	PinDir string
	// Interfaces are where such packets come in. There must be one.
	Interfaces []string
	// Virtual are the inner destinations. There must be one.
	Virtual []netip.Prefix
	// To are the outer destinations; none: the addresses that the host has when it is
	// started, without the virtual ones, loopback and link-local ones. Not whatever
	// comes to the interface: a host that routes or bridges sees tunnels of others.
	To []netip.Prefix
	// From are the outer sources, the directors; none: any.
	From []netip.Prefix
	// Types of tunnels; none: all.
	Types []realserver.TunnelType
	// Ports are gue's; none: decap.DefaultPort.
	Ports []uint16
	// Generic attaches in generic mode even where the driver has native XDP.
	Generic bool
}

func (d Decap) withDefaults() Decap {
	if d.PinDir == "" {
		d.PinDir = decap.DefaultPinDir
	}
	return d
}

// Status is what is running, and what is wrong with the host for it.
type Status struct {
	decap.State

	Warnings []string
}

// Start puts the program on the interfaces, or goes over to this configuration
// without a gap where one is running. It goes on after the process. Returned is what
// is running then. Errors wrap ErrNoInterface, or are decap.Start's.
func (d Decap) Start() (Status, error) {
	d = d.withDefaults()
	wanted, err := d.interfaces()
	if err != nil {
		return Status{}, err
	}
	config, err := d.Config()
	if err != nil {
		return Status{}, err
	}
	if _, err := decap.Start(d.PinDir, config, wanted); err != nil {
		return Status{}, err
	}
	return Show(d.PinDir)
}

// interfaces looks up the names; one that is given twice counts once.
func (d Decap) interfaces() ([]decap.Interface, error) {
	var wanted []decap.Interface
	for _, name := range d.Interfaces {
		iface, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", ErrNoInterface, name)
		}
		i := decap.Interface{Index: iface.Index, Name: name}
		if d.Generic {
			i.Mode = decap.Generic
		}
		if !slices.Contains(wanted, i) {
			wanted = append(wanted, i)
		}
	}
	return wanted, nil
}

// Config is what the program is told on this host, where the outer destinations are not
// given.
func (d Decap) Config() (decap.Config, error) {
	c := decap.Config{Ports: d.Ports, To: d.To, From: d.From, Virtual: d.Virtual}
	for _, t := range d.Types {
		c.Types = append(c.Types, decap.Type(t))
	}
	if len(c.To) > 0 {
		return c, nil
	}
	addresses, err := hostAddresses()
	if err != nil {
		return c, err
	}
	for _, a := range addresses {
		isVirtual := slices.ContainsFunc(d.Virtual, func(p netip.Prefix) bool { return p.Contains(a) })
		if !isVirtual && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			c.To = append(c.To, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if len(c.To) == 0 {
		return c, errors.New("the host has no address that directors could send to, but for virtual, loopback and link-local ones")
	}
	return c, nil
}

// Show returns what runs by the pins in the directory; none: nothing is running.
func Show(pinDir string) (Status, error) {
	state, err := decap.Read(pinDir)
	if err != nil {
		return Status{}, err
	}
	s := Status{State: state}
	host, err := lookAtHost()
	if err != nil {
		return Status{}, err
	}
	s.Warnings = host.warnings(state)
	return s, nil
}

// Stop takes the program off all interfaces; it returns how many that were.
func Stop(pinDir string) (int, error) { return decap.Stop(pinDir) }
