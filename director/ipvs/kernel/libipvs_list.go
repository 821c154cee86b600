//go:build linux && amd64

package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/mqliang/libipvs"
)

// compareLists gives libipvs up if it does not list what Genetlink lists.
func (l *Libipvs) compareLists(ctx context.Context) error {
	var difference error
	for range 3 { // somebody may change the services in between
		want, err := l.Services(ctx)
		if err != nil {
			return err
		}
		var got []ServiceEntry
		err = l.guard(ctx, func() (err error) { got, err = l.list(); return err })
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case l.isGivenUp():
			return nil
		case err != nil:
			difference = fmt.Errorf("list services: %w", err)
		default:
			difference = compareLists(got, want)
		}
		if difference == nil {
			return nil
		}
	}
	l.giveUp(difference)
	return nil
}

// list returns what libipvs reads: identities, configuration without tunnels and
// engines, and no counters, which are 32 bits wide.
func (l *Libipvs) list() ([]ServiceEntry, error) {
	services, err := l.handle.ListServices()
	if err != nil {
		return nil, err
	}
	var all []ServiceEntry
	for _, lib := range services {
		s, err := fromLibService(lib)
		if err != nil {
			return nil, err
		}
		// libipvs cannot ask for the servers of a service it panics on.
		if expressible(s.ServiceID) {
			servers, err := l.handle.ListDestinations(lib)
			if err != nil {
				return nil, fmt.Errorf("list servers of %s: %w", s.ServiceID, err)
			}
			for _, lib := range servers {
				server, err := fromLibServer(lib)
				if err != nil {
					return nil, fmt.Errorf("a server of %s: %w", s.ServiceID, err)
				}
				s.Servers = append(s.Servers, server)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

func fromLibService(lib *libipvs.Service) (s ServiceEntry, err error) {
	s.Scheduler = lib.SchedName
	s.Flags = ServiceFlags(lib.Flags.Flags) &^ flagHashed
	s.Timeout = time.Duration(lib.Timeout) * time.Second
	if lib.FWMark != 0 {
		s.ServiceID = MarkID(lib.FWMark, Family(lib.AddressFamily))
	} else {
		w := wireAddress{family: Family(lib.AddressFamily), octets: lib.Address, port: lib.Port}
		s.Protocol = Protocol(lib.Protocol)
		if s.Address, err = w.addrPort(); err != nil {
			return ServiceEntry{}, err
		}
	}
	s.setNetmask(binary.NativeEndian.AppendUint32(nil, lib.Netmask))
	return s, nil
}

func fromLibServer(lib *libipvs.Destination) (s ServerEntry, err error) {
	w := wireAddress{family: Family(lib.AddressFamily), octets: lib.Address, port: lib.Port}
	if s.Address, err = w.addrPort(); err != nil {
		return ServerEntry{}, err
	}
	s.Method = Method(lib.FwdMethod & libipvs.IP_VS_CONN_F_FWD_MASK)
	s.Weight, s.Upper, s.Lower = lib.Weight, lib.UThresh, lib.LThresh
	return s, nil
}

// compareLists compares what libipvs is able to read.
func compareLists(got, want []ServiceEntry) error {
	if len(got) != len(want) {
		return fmt.Errorf("it lists %d services, there are %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		w.Engine = ""
		if g.Service != w.Service {
			return fmt.Errorf("it lists the service %+v, there is %+v", g.Service, w.Service)
		}
		if !expressible(w.ServiceID) {
			continue
		}
		same := slices.EqualFunc(g.Servers, w.Servers, func(g, w ServerEntry) bool {
			w.Tunnel = Tunnel{}
			return g.Server == w.Server
		})
		if !same {
			return fmt.Errorf("it lists other servers of %s than there are", w.ServiceID)
		}
	}
	return nil
}
