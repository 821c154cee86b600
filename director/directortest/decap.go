package directortest

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf/link"

	"github.com/shunt-lb/shunt/bpf/decap"
)

// linkOf names a link of a namespace.
type linkOf struct {
	namespace *Namespace
	name      string
}

// Decapsulate lets every real server take packets out of tunnels, as shunt-agent
// does, until the lab is closed. Of the configuration, what is not given is: to the
// server's addresses, for the virtual addresses of the topology. The programs,
// whose counters tell of the packets, are in the order of Servers.
func (l *Lab) Decapsulate(c decap.Config) ([]*decap.Program, error) {
	var programs []*decap.Program
	for _, s := range l.Servers {
		own := c
		if own.To == nil {
			own.To = []netip.Prefix{single(s.Addr4), single(s.Addr6)}
		}
		if own.Virtual == nil {
			for _, vip := range l.Topology.VIPs {
				own.Virtual = append(own.Virtual, single(vip))
			}
		}
		p, err := l.decapsulate(s.Namespace, "eth0", own)
		if err != nil {
			return nil, err
		}
		programs = append(programs, p)
	}
	return programs, nil
}

// decapsulate puts the program on a link, in place of the one that passes all, if any.
func (l *Lab) decapsulate(n *Namespace, name string, c decap.Config) (*decap.Program, error) {
	p, err := decap.Load(c)
	if err != nil {
		return nil, fmt.Errorf("decapsulate in %s: %w", n.Name, err)
	}
	l.closeLater(p)
	if passing := l.passing[linkOf{n, name}]; passing != nil {
		if err := passing.Update(p.Entry); err != nil {
			return nil, fmt.Errorf("decapsulate on %s in %s: %w", name, n.Name, err)
		}
		return p, nil
	}
	found, err := n.link(name)
	if err != nil {
		return nil, err
	}
	var attached link.Link
	err = n.Do(func() (err error) {
		attached, err = p.Attach(found.Attrs().Index, decap.Native)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decapsulate in %s: %w", n.Name, err)
	}
	l.closeLater(attached)
	return p, nil
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
