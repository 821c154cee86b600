package doctor

import (
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// answersSince is since when what servers answer from virtual addresses can be handed
// to the director's own connections: by tcx (kernel commit e420bed02507 ("bpf: Add fd-based tcx
// multi-prog infra with link support")).
var answersSince = release{6, 6}

// checkTruePath looks at whether servers that answer clients themselves can be asked at
// the virtual address.
func checkTruePath(i *inspection, r *report) {
	have, text, err := i.release()
	if err == nil && !have.before(answersSince) {
		return
	}
	for n := range i.Services {
		s := &i.Services[n]
		unchanged := slices.ContainsFunc(s.Servers, func(server realserver.Server) bool {
			return server.Method == realserver.DR || server.Method == realserver.Tunnel
		})
		severity := OK
		for _, check := range s.Health.Checks {
			switch {
			case !unchanged || check.Protocol() == "" || check.Via == realserver.ViaServer:
			case check.Via == realserver.ViaVirtual:
				severity = Error
			case severity == OK && !s.Key.IsWide():
				severity = Warning
			}
		}
		if severity == OK {
			continue
		}
		if err != nil {
			r.unknown(s.Key.String(), err)
			continue
		}
		what := fmt.Sprintf("kernel %s cannot hand the director what servers by dr and tunnel answer from the virtual address (since %d.%d)", text, answersSince.major, answersSince.minor)
		if severity == Error {
			r.add(Error, s.Key.String(), what+", and a check has via: virtual",
				"the check fails whatever the servers do: they are down", "leave via: virtual out, or: apt-get install linux-image-amd64 # 6.6 or later, then reboot")
		} else {
			r.add(Warning, s.Key.String(), what+": they are asked at their own addresses",
				"a server without the virtual address on lo, or that does not decapsulate, is found up, and its clients are not answered",
				"apt-get install linux-image-amd64 # 6.6 or later, then reboot")
		}
	}
}
