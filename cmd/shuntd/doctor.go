package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/doctor"
)

// inspect looks at the host for a caller of the API.
func (d *instance) inspect(ctx context.Context) ([]api.Finding, error) {
	findings, err := doctor.Inspect(ctx, hostOf(d.settings, d.director.State()))
	if err != nil {
		return nil, err
	}
	models := make([]api.Finding, len(findings))
	for i, f := range findings {
		models[i] = api.Finding{
			Check: f.Check, Title: f.Title, Subject: f.Subject, Severity: api.FindingSeverity(f.Severity),
			Ok: f.Severity == doctor.OK, What: f.What, Why: f.Why, Fix: f.Fix,
		}
	}
	return models, nil
}

// hostOf is what the doctor is to look at.
func hostOf(s config.Settings, state director.State) doctor.Host {
	return doctor.Host{
		Interfaces: s.Interfaces, Services: state.Services, PinDir: s.PinDir, Dataplane: s.Dataplane,
		MaxConnections4: s.MaxConnections, MaxConnections6: s.MaxConnections6, Generic: s.Generic(),
	}
}

// diagnose is `shuntd doctor`: it looks at the host without a daemon, as the
// configuration file describes it.
func diagnose(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	cfg, err := readSettings(c)
	if err != nil {
		return err
	}
	findings, err := doctor.Inspect(c.Context, hostOf(cfg.Director, cfg.State))
	if err != nil {
		return err
	}
	errors := 0
	for _, f := range findings {
		if f.Severity == doctor.Error {
			errors++
		}
		if f.Severity != doctor.OK || c.Bool("all") {
			printFinding(c.App.Writer, f)
		}
	}
	if errors > 0 {
		return fmt.Errorf("%d findings that keep Shunt from working as configured", errors)
	}
	return nil
}

func printFinding(w io.Writer, f doctor.Finding) {
	about := f.Check
	if f.Subject != "" {
		about += " " + f.Subject
	}
	fmt.Fprintf(w, "%-8s%s: %s\n", f.Severity, about, f.What)
	for _, line := range []struct{ label, text string }{{"why", f.Why}, {"fix", f.Fix}} {
		if line.text != "" {
			fmt.Fprintf(w, "        %s: %s\n", line.label, strings.ReplaceAll(line.text, "\n", "\n             "))
		}
	}
}
