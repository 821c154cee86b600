package labtest

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// TestForeignServices gives the kernel to a daemon with another store: what it
// finds serves on, is shown and left alone, until it is adopted.
func TestForeignServices(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	p.d.do(t, "service add udp://[2001:db8::10]:53 --name dns --scheduler sh --flags sh-port\nserver add dns [fd00:2::b]:53 --method nat --weight 5\nserver edit web "+p.servers[0]+" --weight 2")
	c := p.on(t, 0)
	p.d.stop(t)
	want := inKernel(t, p.d.pins)
	ok(t, os.Rename(p.d.state, p.d.state+".before"))
	p.d.args = append(p.d.args, "--config", writeFile(t, p.d.state+".yaml", often))
	p.d.start(t)

	t.Run("serve_on_and_are_shown", func(t *testing.T) {
		p.d.compared(t, 5)
		p.serves(t)
		ok(t, c.ask())
		if diff := cmp.Diff(want, inKernel(t, p.d.pins)); diff != "" {
			t.Errorf("the kernel (-before +after):\n%s", diff)
		}
		drift := p.d.drift(t)
		if len(drift.Foreign) != 2 || drift.Found+drift.Repaired > 0 || drift.Foreign[0].Listen != "tcp://192.0.2.10:80" || len(drift.Foreign[0].Servers) != 2 {
			t.Errorf("drift %+v, want both services as foreign and nothing to repair", drift)
		}
		if events := p.d.told(t, 0, "foreign-found"); len(events) != 2 {
			t.Errorf("events %+v, want each service once", events)
		}
		if n := read[api.Status](t, p.d, "status").Foreign; n != 2 {
			t.Errorf("status counts %d foreign services", n)
		}
		for _, text := range []string{p.d.shunt(t, "drift"), p.d.shunt(t, "service", "list")} {
			if !strings.Contains(text, "192.0.2.10") || !strings.Contains(text, "[2001:db8::10]:53") {
				t.Errorf("printed:\n%s", text)
			}
		}
		if s := read[api.Service](t, p.d, "service", "show", "tcp://192.0.2.10:80"); !s.Foreign || len(s.Servers) != 2 {
			t.Errorf("shown as %+v", s)
		}
	})
	t.Run("cannot_be_added", func(t *testing.T) {
		r := p.d.try(t, "service", "add", "tcp://192.0.2.10:80", "--scheduler", "wrr")
		if r.code != 1 || !strings.Contains(r.stderr, "adopt") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
		if diff := cmp.Diff(want, inKernel(t, p.d.pins)); diff != "" {
			t.Errorf("the kernel (-before +after):\n%s", diff)
		}
	})
	t.Run("survive_changes_of_others", func(t *testing.T) {
		p.d.do(t, "service add tcp://192.0.2.10:8080 --name mine\nserver add mine "+p.lab.Servers[1].Addr4.String()+":80 --method nat\nservice remove mine --yes")
		p.serves(t)
		ok(t, c.ask())
	})
	t.Run("are_adopted", func(t *testing.T) {
		if out := p.d.shunt(t, "service", "adopt", "--all"); !strings.Contains(out, "tcp://192.0.2.10:80") || !strings.Contains(out, "udp://[2001:db8::10]:53") {
			t.Errorf("it printed:\n%s", out)
		}
		if drift := p.d.drift(t); len(drift.Foreign) > 0 {
			t.Errorf("foreign still: %+v", drift.Foreign)
		}
		dns := read[api.Service](t, p.d, "service", "show", "udp://[2001:db8::10]:53")
		if dns.Foreign || dns.Name != "dns" || dns.Scheduler != "sh" || strings.Join(dns.Flags, ",") != "sh-port" || dns.Servers[0].Weight != 5 {
			t.Errorf("adopted as %+v", dns)
		}
		p.d.do(t, "server edit web "+p.servers[0]+" --weight 0")
		if answers := p.requests(t, 5); answers[p.lab.Servers[1].Name] != 5 {
			t.Errorf("after the edit: answers %v", answers)
		}
		ok(t, c.ask())
		p.d.do(t, "server edit web "+p.servers[0]+" --weight 1")
		p.d.kill()
		p.d.start(t)
		if got := p.d.server(t, "web", p.servers[0]).Weight; got != 1 {
			t.Errorf("weight %d after a restart", got)
		}
		p.serves(t)
	})
	p.d.noFaults(t)
}
