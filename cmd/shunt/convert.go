package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

// configurationOf turns what a file says into what the API takes. Timeouts that
// are zero are left out.
func configurationOf(state director.State) api.Configuration {
	configuration := api.Configuration{Services: []api.ServiceConfig{}}
	edit := api.TimeoutsEdit{
		TCP: givenDuration(state.Timeouts.TCP), TCPFin: givenDuration(state.Timeouts.TCPFin), UDP: givenDuration(state.Timeouts.UDP),
	}
	if edit != (api.TimeoutsEdit{}) {
		configuration.Timeouts = &edit
	}
	for _, s := range state.Services {
		configuration.Services = append(configuration.Services, serviceConfig(s))
	}
	return configuration
}

// givenDuration is nil for 0: a timeout that is left out.
func givenDuration(d time.Duration) *api.Duration {
	if d == 0 {
		return nil
	}
	return new(api.Duration(d))
}

// duration is 0 for one that is left out.
func duration(d *api.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(*d)
}

func serviceConfig(s director.Service) api.ServiceConfig {
	service := api.ServiceConfig{
		Listen: s.Key.String(), Name: s.Name, Scheduler: string(s.Scheduler),
		Flags: s.Scheduler.FlagNames(s.Flags), VIP: string(s.VIP),
	}
	if !s.Access.IsZero() {
		service.Access = &api.Access{Allow: prefixTexts(s.Access.Allow), Deny: prefixTexts(s.Access.Deny)}
	}
	for _, r := range s.Servers {
		weight := r.Weight
		service.Servers = append(service.Servers, api.ServerConfig{Address: r.Address.String(), Method: r.Method.String(), Weight: &weight})
	}
	return service
}

func prefixTexts(prefixes []netip.Prefix) []string {
	var all []string
	for _, p := range prefixes {
		all = append(all, p.String())
	}
	return all
}

// stateOf turns the API's configuration back.
func stateOf(configuration api.Configuration) (director.State, error) {
	var state director.State
	if edit := configuration.Timeouts; edit != nil {
		state.Timeouts = conntrack.Timeouts{TCP: duration(edit.TCP), TCPFin: duration(edit.TCPFin), UDP: duration(edit.UDP)}
	}
	for _, s := range configuration.Services {
		service, err := serviceOf(s)
		if err != nil {
			return director.State{}, fmt.Errorf("service %s: %w", s.Listen, err)
		}
		state.Services = append(state.Services, service)
	}
	return state.Normalize(), nil
}

func serviceOf(s api.ServiceConfig) (director.Service, error) {
	key, err := director.ParseServiceKey(s.Listen)
	if err != nil {
		return director.Service{}, err
	}
	service := director.Service{
		Key: key, Name: s.Name, Scheduler: director.Scheduler(s.Scheduler), VIP: director.VIPOwner(s.VIP),
	}
	for _, flag := range s.Flags {
		service.Flags.Port = service.Flags.Port || strings.HasSuffix(flag, "-port")
		service.Flags.Fallback = service.Flags.Fallback || strings.HasSuffix(flag, "-fallback")
	}
	if s.Access != nil {
		if service.Access.Allow, err = parsePrefixes(s.Access.Allow); err != nil {
			return director.Service{}, err
		}
		if service.Access.Deny, err = parsePrefixes(s.Access.Deny); err != nil {
			return director.Service{}, err
		}
	}
	for _, r := range s.Servers {
		server := realserver.Server{Weight: 1}
		if server.Address, err = netip.ParseAddrPort(r.Address); err != nil {
			return director.Service{}, err
		}
		if server.Method, err = realserver.ParseMethod(r.Method); err != nil {
			return director.Service{}, err
		}
		if r.Weight != nil {
			server.Weight = *r.Weight
		}
		service.Servers = append(service.Servers, server)
	}
	return service, nil
}

func parsePrefixes(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
