package ipvsadm

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// A restore of what -S saved with somebody else's services is taken, and leaves them
// as they are; where its lines say something else of them, they are refused.
func TestRestoreSparesOthers(t *testing.T) {
	d, dp := fake(t, director.PlaneIPVS)
	d.script("-A -t 192.0.2.1:80", "-a -t 192.0.2.1:80 -r 10.0.0.1 -m")
	addr := netip.MustParseAddrPort
	key, err := director.ParseFoundKey("udp://0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	others := []director.Service{
		{
			Key: key, Scheduler: "sh", Flags: director.SchedulerFlags{Port: true}, VIP: director.VIPExternal,
			Persistence: director.Persistence{Timeout: time.Minute, Prefix: 8, Mask: 0xff00ff00},
			Servers: []realserver.Server{
				{Address: addr("10.0.0.9:0"), Method: realserver.NAT, Weight: 3, Upper: 10, Lower: 5},
				{Address: addr("10.0.0.9:53"), Method: realserver.NAT, Weight: 4},
				{Address: addr("127.0.0.1:53"), Method: realserver.Local, Weight: 1},
			},
		},
		{Key: director.MarkKey(7, netip.IPv6Unspecified()), Scheduler: "none", VIP: director.VIPExternal, Persistence: director.Persistence{Engine: director.EngineSIP}},
	}
	dp.Meddle(func(s *director.State) { s.Services = append(s.Services, others...) })
	saved := d.saved()
	dp.Operations()
	note := "shunt: services in the kernel that are not Shunt's, and stay there: 2\nhint: " + adoptHint + "\n"
	if diff := cmp.Diff(result{Err: note}, d.run(restoreProgram, saved)); diff != "" {
		t.Errorf("restore (-want +got):\n%s\nof\n%s", diff, saved)
	}
	if ops := dp.Operations(); len(ops) > 0 {
		t.Errorf("operations %v", ops)
	}
	if diff := cmp.Diff(result{Err: note}, d.run(program, "-C\n"+saved, "-R")); diff != "" {
		t.Errorf("-R of -C and all (-want +got):\n%s", diff)
	}

	for name, edit := range map[string][2]string{
		"another_scheduler": {"-s none", "-s rr"},
		"another_mask":      {"255.0.255.0", "255.0.0.0"},
		"another_weight":    {"10.0.0.9:0 -m -w 3", "10.0.0.9:0 -m -w 2"},
		"another_method":    {"10.0.0.9:53 -m", "10.0.0.9:53 -g"},
		"another_server":    {"10.0.0.9:53", "10.0.0.8:53"},
		"a_server_less":     {"-a -u 0.0.0.0:53 -r 10.0.0.9:53 -m -w 4\n", ""},
		"a_server_twice":    {"-a -u 0.0.0.0:53 -r 10.0.0.9:53 -m -w 4\n", strings.Repeat("-a -u 0.0.0.0:53 -r 10.0.0.9:53 -m -w 4\n", 2)},
	} {
		text := strings.Replace(saved, edit[0], edit[1], 1)
		if text == saved {
			t.Fatalf("%s: no %q in\n%s", name, edit[0], saved)
		}
		got := d.run(restoreProgram, text)
		if !strings.Contains(got.Err, "already exists\n") || !strings.Contains(got.Err, "not Shunt's") || !strings.HasSuffix(got.Err, "shunt: nothing was changed\n") || got.Status != 255 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// Without -C it is as ever.
	if got := d.run(program, saved, "-R"); got.Status == 0 {
		t.Errorf("-R without -C: %+v", got)
	}
	if diff := cmp.Diff(saved, d.saved()); diff != "" {
		t.Errorf("-S (-before +after):\n%s", diff)
	}
}
