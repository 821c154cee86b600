package main

import (
	"io"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

// readSettings reads the file that --config names, or the defaults, and puts
// the flags that were given over it.
func readSettings(c *cli.Context) (config.Config, error) {
	plane := ""
	if c.IsSet("dataplane") {
		plane = c.String("dataplane")
	}
	cfg, err := readFile(c.String("config"), plane)
	if err != nil {
		return cfg, &usageError{err, ""}
	}
	s := &cfg.Director
	// SHUNT_SOCKET counts as given, unless it is empty.
	if path := c.String("socket"); c.IsSet("socket") && path != "" {
		s.Socket = path
	}
	for _, flag := range []struct {
		name  string
		value *string
	}{{"dataplane", &s.Dataplane}, {"pin-dir", &s.PinDir}, {"state", &s.StateDir}, {"log-level", &s.LogLevel}, {"log-format", &s.LogFormat}} {
		if !c.IsSet(flag.name) {
			continue
		}
		if *flag.value = c.String(flag.name); *flag.value == "" {
			return cfg, usage("", "--%s: the value is empty", flag.name)
		}
	}
	if c.IsSet("interface") {
		s.Interfaces = c.StringSlice("interface")
	}
	if c.IsSet("generic") {
		s.Mode = director.InterfaceNative
		if c.Bool("generic") {
			s.Mode = director.InterfaceGeneric
		}
	}
	if c.IsSet("max-connections") {
		if err := s.SetConnections(c.String("max-connections")); err != nil {
			return cfg, usage("", "--max-connections: %v", err)
		}
	}
	if _, _, err := logger(io.Discard, s.LogLevel, s.LogFormat); err != nil {
		return cfg, err
	}
	if err := checkPlane(c, s); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// xdpFlags are those that say something to the XDP data plane alone.
var xdpFlags = []string{"interface", "pin-dir", "generic", "max-connections"}

// checkPlane refuses a data plane that there is not, and flags of the command line
// that are another one's: in a file they do no harm, which may serve both.
func checkPlane(c *cli.Context, s *config.Settings) error {
	if _, err := director.FeaturesOf(s.Dataplane); err != nil {
		return usage("", "--dataplane: unknown data plane %q: want xdp or ipvs", s.Dataplane)
	}
	if s.Dataplane == director.PlaneXDP {
		if len(s.Interfaces) == 0 {
			return usage("give --interface eth0, or interfaces under director in the configuration file", "no interface to attach to")
		}
		return nil
	}
	for _, name := range xdpFlags {
		if c.IsSet(name) {
			return usage("", "--%s is for the xdp data plane: leave it out with %s", name, s.Dataplane)
		}
	}
	return nil
}

// readFile reads the file; without one the configuration is that of an empty
// text. plane is the data plane that the command line names, if it is a known one.
func readFile(path, plane string) (config.Config, error) {
	if path == "" {
		return config.Parse("no file", nil)
	}
	if _, err := director.FeaturesOf(plane); err != nil {
		plane = "" // not given, or checkPlane refuses it
	}
	return config.LoadFor(path, plane)
}
