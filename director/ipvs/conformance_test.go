package ipvs

import (
	"context"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/conformance"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
)

func TestGuestConformance(t *testing.T) {
	guest.Guest(t)
	open := func(t testing.TB, lab *directortest.Lab) (d *Dataplane) {
		t.Helper()
		if err := lab.Director.Do(func() (err error) {
			d, err = Open(context.Background(), Options{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	conformance.Run(t, conformance.Plane{
		Forwarding: directortest.On, // replies of nat are routed
		Open:       func(t testing.TB, lab *directortest.Lab) conformance.Dataplane { return open(t, lab) },
		Detach: func(t testing.TB, lab *directortest.Lab) {
			d := open(t, lab)
			found, err := d.Found(context.Background())
			if err != nil {
				t.Error(err)
			}
			for i := range found.Services { // a daemon knows whose the addresses are, this one not
				found.Services[i].VIP = "managed"
			}
			if err := d.Detach(context.Background(), found); err != nil {
				t.Error(err)
			}
		},
	})
}
