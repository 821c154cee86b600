package ldirectord_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/ldirectord"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/director/directortest/importtest"
)

// FuzzImport: no text makes Import panic, what comes out is valid and its notes
// are complete, and errors are located.
func FuzzImport(f *testing.F) {
	for name := range fixtures {
		data, err := os.ReadFile(filepath.Join("testdata", "fixtures", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{
		"", "virtual=", "virtual=:80", "virtual=1:", "virtual6=[]:80", "virtual=]:80", "virtual=4294967296", "virtual=1\n\t=", "virtual=1\n\treal=a gate",
		"virtual=1\n\treal=255.255.255.250->255.255.255.255 gate", "virtual=1\n\treal=1.2.3.4 masq \"a\" \"b\"", "virtual6=1\n\treal6=[::1] gate\n\tnetmask=0\n\tpersistent=1",
		"virtual=1.2.3.4:0\n\treal=1.2.3.4 gate", "virtual=1\n\tschedflags=,\n\tpersistent=99999999999", "virtual=1\n\tservicename=\xff",
		"maintenancedir=/etc/\nfallback=1.2.3.4\nvirtual=1.2.3.4:80\n\tchecktype=4294967295\n\treal=1.2.3.5:80 masq \"\xff\", \"(\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		result, err := ldirectord.Import("l.cf", data, ldirectord.Options{Names: names{}})
		if err != nil {
			if located := (*translation.Error)(nil); !errors.As(err, &located) || located.File == "" {
				t.Errorf("error %v is not located", err)
			}
			return
		}
		if err := errors.Join(result.State.Validate(), director.IPVSFeatures().Check(result.State)); err != nil {
			t.Errorf("the state is not valid: %v", err)
		}
		importtest.Taken(t, result)
		for _, n := range result.Notes {
			if n.File == "" || n.Line == 0 && n.Kind != translation.Reminder || n.Kind == "" || n.Why == "" {
				t.Errorf("note %+v is not complete", n)
			}
			for _, key := range n.Services {
				if result.State.Service(key) < 0 {
					t.Errorf("note %s is of service %s, which is not there", n, key)
				}
			}
		}
	})
}
