package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/doctor"
)

// inspect looks at the host for a caller of the API.
func (d *instance) inspect(ctx context.Context) ([]api.Finding, error) {
	return inspect(ctx, d.settings, d.director.State())
}

// inspect looks at the host as the settings and the state describe it.
func inspect(ctx context.Context, s config.Settings, state director.State) ([]api.Finding, error) {
	findings, err := doctor.Inspect(ctx, hostOf(s, state))
	if err != nil {
		return nil, err
	}
	models := make([]api.Finding, len(findings))
	for i, f := range findings {
		models[i] = api.Finding{
			Check: f.Check, Title: f.Title, Subject: f.Subject, Severity: api.FindingSeverity(f.Severity),
			What: f.What, Why: f.Why, Fix: f.Fix,
		}
	}
	return models, nil
}

// hostOf is what the doctor is to look at.
func hostOf(s config.Settings, state director.State) doctor.Host {
	return doctor.Host{
		Interfaces: s.Interfaces, Services: state.Services, PinDir: s.PinDir, Dataplane: s.Dataplane,
		MaxConnections4: s.MaxConnections, MaxConnections6: s.MaxConnections6, Generic: s.Generic(),
		TunnelSources: s.TunnelSources, LocalAddresses: s.LocalAddresses,
	}
}

// diagnose is `shuntd doctor`: it looks at the host without a daemon, as the
// configuration file describes it, and shows what `shunt doctor` would.
func diagnose(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	cfg, err := readSettings(c)
	if err != nil {
		return err
	}
	findings, err := inspect(c.Context, cfg.Director, cfg.State)
	if err != nil {
		return err
	}
	api.SortFindings(findings)
	shown := findings
	if !c.Bool("all") {
		shown = api.NotableFindings(findings)
	}
	wrong := false
	for _, f := range shown {
		fmt.Fprint(c.App.Writer, f)
		wrong = wrong || f.Severity == api.FindingSeverityError
	}
	fmt.Fprintln(c.App.Writer, api.CountFindings(findings))
	if wrong {
		return errors.New("what is an error keeps Shunt from working as configured")
	}
	return nil
}
