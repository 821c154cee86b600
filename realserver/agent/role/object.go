package role

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/decap"
)

// The kinds of objects, and what the name of one is.
const (
	kindSysctl  = "sysctl"      // a path below /proc/sys
	kindAddress = "address"     // interface and prefix
	kindLocal   = "local-route" // the prefix, on lo
	kindRoute   = "route"       // prefix via gateway, in the main table
	kindDecap   = "decap"       // the directory of the pins
)

// present is the value of an address or a route that is there; "" of one that is not.
const present = "present"

// errGone is of an object whose interface is not there any more.
var errGone = errors.New("it is gone with its interface")

// Object is a thing of the host that has one value.
type Object struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Change is of an object, from one value to another.
type Change struct {
	Object

	Before string `json:"before"`
	After  string `json:"after"`
}

// String says it in a line.
func (c Change) String() string {
	switch c.Kind {
	case kindSysctl:
		return fmt.Sprintf("sysctl %s=%s (was %s)", c.Name, c.After, c.Before)
	case kindDecap:
		return fmt.Sprintf("decapsulation: %s (was: %s)", plain(c.After), plain(c.Before))
	}
	words := []string{c.Kind, c.Name}
	if iface, prefix, ok := strings.Cut(c.Name, " "); ok && c.Kind == kindAddress {
		words = []string{c.Kind, prefix, "on", iface}
	}
	if c.After == "" {
		return strings.Join(words, " ") + ": none (was there)"
	}
	return strings.Join(words, " ")
}

// plain says what a decapsulation is for.
func plain(value string) string {
	d, err := parseDecapsulation(value)
	if err != nil || len(d.Interfaces) == 0 {
		return "none"
	}
	var names, vips []string
	for _, i := range d.Interfaces {
		names = append(names, i.Name)
	}
	for _, p := range d.Virtual {
		vips = append(vips, text(p))
	}
	return fmt.Sprintf("%s on %s for %s", strings.Join(d.Types, ", "), strings.Join(names, ", "), strings.Join(vips, ", "))
}

// back is the change that undoes it.
func (c Change) back() Change { return Change{c.Object, c.After, c.Before} }

// machine has objects. Setting one to the value that it has is no error.
type machine interface {
	get(Object) (string, error)
	set(Object, string) error
}

// kernel is the calling thread's network namespace.
type kernel struct{}

var _ machine = kernel{}

func (kernel) get(o Object) (string, error) {
	switch o.Kind {
	case kindSysctl:
		value, err := os.ReadFile(filepath.Join("/proc/sys", o.Name))
		if errors.Is(err, fs.ErrNotExist) {
			return "", errGone
		}
		return strings.TrimSpace(string(value)), err
	case kindAddress:
		return getAddress(o)
	case kindLocal, kindRoute:
		return getRoute(o)
	default:
		state, err := decap.Read(o.Name)
		return running(state).value(), err
	}
}

func (kernel) set(o Object, value string) error {
	switch o.Kind {
	case kindSysctl:
		return os.WriteFile(filepath.Join("/proc/sys", o.Name), []byte(value), 0)
	case kindAddress:
		return setAddress(o, value)
	case kindLocal, kindRoute:
		return setRoute(o, value)
	default:
		return setDecap(o.Name, value)
	}
}

// parse reads an address's name.
func parseAddress(name string) (iface string, prefix netip.Prefix, err error) {
	iface, text, ok := strings.Cut(name, " ")
	if !ok || iface == "" {
		return "", prefix, fmt.Errorf("%q is no interface and address", name)
	}
	prefix, err = netip.ParsePrefix(text)
	return iface, prefix, err
}

func getAddress(o Object) (string, error) {
	name, prefix, err := parseAddress(o.Name)
	if err != nil {
		return "", err
	}
	l, err := linkOf(name)
	if err != nil {
		return "", err
	}
	all, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(all, func(a netlink.Addr) bool { p, ok := prefixOf(a.IPNet); return ok && p == prefix }) {
		return present, nil
	}
	return "", nil
}

func setAddress(o Object, value string) error {
	name, prefix, err := parseAddress(o.Name)
	if err != nil {
		return err
	}
	l, err := linkOf(name)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if value == "" {
		if err := netlink.AddrDel(l, a); !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
		return nil
	}
	if prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(l, a); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func linkOf(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if _, isMissing := errors.AsType[netlink.LinkNotFoundError](err); isMissing {
		return nil, errGone
	}
	return l, err
}

// parseRoute is a route as it is looked for and added.
func parseRoute(o Object) (*netlink.Route, error) {
	to, gateway, isVia := strings.Cut(o.Name, " via ")
	prefix, err := netip.ParsePrefix(to)
	if err != nil {
		return nil, err
	}
	r := &netlink.Route{Dst: ipNet(prefix), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_STATIC}
	if o.Kind == kindLocal {
		if isVia {
			return nil, fmt.Errorf("%q is no prefix", o.Name)
		}
		r.Table, r.Type, r.Scope = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, unix.RT_SCOPE_HOST
		return r, nil
	}
	a, err := netip.ParseAddr(gateway)
	if err != nil {
		return nil, err
	}
	if a.Is4() != prefix.Addr().Is4() {
		return nil, fmt.Errorf("%q is of two address families", o.Name)
	}
	r.Gw = a.AsSlice()
	return r, nil
}

func getRoute(o Object) (string, error) {
	wanted, err := parseRoute(o)
	if err != nil {
		return "", err
	}
	family := netlink.FAMILY_V4
	if len(wanted.Dst.IP) == net.IPv6len {
		family = netlink.FAMILY_V6
	}
	all, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: wanted.Table, Type: wanted.Type}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return "", err
	}
	to, _ := prefixOf(wanted.Dst)
	if slices.ContainsFunc(all, func(r netlink.Route) bool {
		p, ok := prefixOf(r.Dst)
		return ok && p == to && r.Gw.Equal(wanted.Gw) && r.Protocol == wanted.Protocol
	}) {
		return present, nil
	}
	return "", nil
}

func setRoute(o Object, value string) error {
	r, err := parseRoute(o)
	if err != nil {
		return err
	}
	if o.Kind == kindLocal {
		l, err := linkOf("lo")
		if err != nil {
			return err
		}
		r.LinkIndex = l.Attrs().Index
	}
	if value == "" {
		if err := netlink.RouteDel(r); !errors.Is(err, unix.ESRCH) {
			return err
		}
		return nil
	}
	return netlink.RouteAdd(r)
}

func setDecap(pinDir, value string) error {
	d, err := parseDecapsulation(value)
	if err != nil {
		return err
	}
	if len(d.Interfaces) == 0 {
		_, err := decap.Stop(pinDir)
		return err
	}
	c, err := d.config()
	if err != nil {
		return err
	}
	var wanted []decap.Interface
	for _, i := range d.Interfaces {
		l, err := net.InterfaceByName(i.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", i.Name, err)
		}
		iface := decap.Interface{Index: l.Index, Name: i.Name}
		if i.Generic {
			iface.Mode = decap.Generic
		}
		wanted = append(wanted, iface)
	}
	_, err = decap.Start(pinDir, c, wanted)
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
