package labtest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestMethods has every method carry HTTP in every mix of families that it can, both
// ways, to servers on the link and behind a router.
func TestMethods(t *testing.T) {
	t.Parallel()
	r := startRouted(t, routing{})
	r.serve(t)
	for _, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			const size = 200_000
			header := r.fetch(t, o, 0, size, false)
			r.fetch(t, o, 0, size, true)
			total, servers := r.d.counters(t, "tcp-"+o.name)
			// The request's and the upload's octets pass the director in any case.
			if total.Connections != 2 || total.In.Packets < 150 || total.In.Bytes < size {
				t.Errorf("the director counted %+v for two connections", total)
			}
			if o.method == nat || o.method == fullnat {
				if total.Out.Bytes < size {
					t.Errorf("the director counted %d octets of answers, which have %d", total.Out.Bytes, size)
				}
			} else if total.Out.Packets != 0 {
				t.Errorf("%d packets of answers passed the director", total.Out.Packets)
			}
			if got := servers[o.at.String()].Connections; got != 2 {
				t.Errorf("the director counted %d connections of %s", got, o.at)
			}
			o.seen(t, r, header.Get(directortest.HeaderClient), header.Get(directortest.HeaderLocal))
		})
	}
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
	t.Run("curl", func(t *testing.T) {
		for _, o := range r.targets {
			got := execute(t, r.lab.Client.Command(t.Context(), "curl", "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*",
				"--max-time", "10", fmt.Sprintf("http://%s/", o.vip)))
			if got.code != 0 || got.stdout != o.server.Name+"\n" {
				t.Errorf("%s: curl ended with %d: %s%s", o.name, got.code, got.stdout, got.stderr)
			}
		}
	})
}

// seen compares the addresses that the server has seen.
func (o target) seen(t *testing.T, r *routed, client, local string) {
	t.Helper()
	from, err := netip.ParseAddrPort(client)
	if err != nil {
		t.Fatal(err)
	}
	if want := r.client(o, 0); o.keepsClient() != (from.Addr() == want) {
		t.Errorf("the server saw %s, the client is %s", from, want)
	}
	want := o.at
	if o.method == dr || o.isTunnel() {
		want = o.vip
	}
	if local != want.String() {
		t.Errorf("the server was reached at %s, want %s", local, want)
	}
}
