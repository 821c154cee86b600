package labtest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// keepalivedFarm is a farm of two servers with a third one to be sorry, as keepalived
// has it; what is to be asked is at a port of its own.
const keepalivedFarm = `
virtual_server %[1]s 80 {
    delay_loop 0.2
    delay_before_retry 0.1
    retry 2
    connect_timeout 0.2
    protocol TCP
    lvs_sched rr
    lvs_method NAT
    sorry_server %[4]s 80
    real_server %[2]s 80 {
        HTTP_GET {
            url {
                path /ready
                status_code 200
            }
            connect_port %[5]d
        }
    }
    real_server %[3]s 80 {
        HTTP_GET {
            url {
                path /ready
                status_code 200
            }
            connect_port %[5]d
        }
    }
}
`

// TestImportedKeepalived applies what a keepalived.conf was translated to: its check
// takes a failing server out, its sorry server stands in for both, and they come back.
func TestImportedKeepalived(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 3})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	// keepalived's VRRP has the address.
	ok(t, lab.Director.AddAddress(lab.DirectorLinks[0], netip.PrefixFrom(vip4, 32)))
	d := startDaemon(t, lab)
	const port = 8080
	servers, sorry := lab.Servers[:2], lab.Servers[2].Name
	answers := []*readiness{ready(t, servers[0].Namespace, port), ready(t, servers[1].Namespace, port)}

	folder := t.TempDir()
	text, yaml := filepath.Join(folder, "keepalived.conf"), filepath.Join(folder, "shunt.yaml")
	writeFile(t, text, fmt.Sprintf(keepalivedFarm, vip4, servers[0].Addr4, servers[1].Addr4, lab.Servers[2].Addr4, port))
	writeFile(t, yaml, d.shunt(t, "import", "--strict", text))
	d.shunt(t, "apply", "-f", yaml)

	const requests = 8
	for _, step := range []struct {
		what   string
		status [2]int32
		want   map[string]int
	}{
		{"both serve", [2]int32{200, 200}, map[string]int{servers[0].Name: requests / 2, servers[1].Name: requests / 2}},
		{"one says 503", [2]int32{http.StatusServiceUnavailable, 200}, map[string]int{servers[1].Name: requests}},
		{"the other hangs up, too", [2]int32{http.StatusServiceUnavailable, hangUp}, map[string]int{sorry: requests}},
		{"one is back", [2]int32{200, hangUp}, map[string]int{servers[0].Name: requests}},
	} {
		for i, status := range step.status {
			answers[i].status.Store(status)
		}
		await(t, step.what, func() bool {
			got := map[string]int{}
			for range requests {
				// Packets of a server that was removed are dropped: the request under way
				// is lost, as with keepalived.
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				header, err := job{address: netip.AddrPortFrom(vip4, 80), size: 100}.doWithin(ctx, lab.Client)
				cancel()
				if err != nil {
					return false
				}
				got[header.Get(directortest.HeaderServer)]++
			}
			return maps.Equal(got, step.want)
		})
	}
	d.noFaults(t, "server-removed")
}
