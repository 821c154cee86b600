package xdp_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/conformance"
	"github.com/shunt-lb/shunt/director/xdp"
)

func TestConformance(t *testing.T) {
	directortest.Privileged(t)
	pins := filepath.Join(directortest.Bpffs(t), "pins")
	conformance.Run(t, conformance.Plane{
		Open: func(t testing.TB, lab *directortest.Lab) (d conformance.Dataplane) {
			t.Helper()
			if err := lab.Director.Do(func() error {
				opened, err := xdp.Open(context.Background(), xdp.Options{
					Interfaces: lab.DirectorLinks, PinDir: pins, MaxConnections: 1 << 16, MaxServers: 256, MaxServices: 64, SchedulerWords: 1 << 18,
					LocalAddresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/32"), netip.MustParsePrefix("fd00:77::1/128")},
				})
				d = opened
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return d
		},
		Detach: func(t testing.TB, lab *directortest.Lab) {
			if err := lab.Director.Do(func() error { return xdp.Detach(pins, slog.New(slog.DiscardHandler)) }); err != nil {
				t.Error(err)
			}
		},
	})
}
