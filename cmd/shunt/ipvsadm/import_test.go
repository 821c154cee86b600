package ipvsadm_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
)

// reminder is what the text cannot tell, and what takes it: --adopt takes services
// alone.
const reminder = "saved: reminder: ipvsadm -S: it saves no thresholds (-x, -y), timeouts, sync daemons and sysctls. " +
	"`shunt import --adopt` takes the kernel's services with their thresholds, and no more; `shunt apply` takes a sync daemon over if director.sync has it; " +
	"write timeouts into director.connections.timeouts (ipvsadm -L --timeout shows them)\n"

func TestImport(t *testing.T) {
	const saved = `-A -t 192.0.2.1:80 -s sh -p 360 -M 255.255.255.0 -b sh-port
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 3
-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g -w 0
-A -f 7 -6 -s wlc -o
-a -f 7 -6 -r [2001:db8::2]:0 -i -w 1 --tun-type gue --tun-port 5555 --tun-csum
`
	result, err := ipvsadm.Import("saved", []byte(saved))
	if err != nil {
		t.Fatal(err)
	}
	const want = "service tcp://192.0.2.1:80 sh sh-port persistence 6m0s for each /24 vip external\n" +
		"  server 10.0.0.2:8080 nat weight 3\n" +
		"  server 10.0.0.1:80 dr weight 0\n" +
		"service fwmark6://7 wlc one-packet vip external\n" +
		"  server [2001:db8::2]:0 tunnel (gue port 5555, full checksum) weight 1\n" +
		reminder
	if diff := cmp.Diff(want, result.String()); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

// TestImportLeavesOut says what becomes of services that the kernel takes, and Shunt
// has no words for: the others are there.
func TestImportLeavesOut(t *testing.T) {
	const saved = `-A -t 192.0.2.1:80 -s wlc -p 50 -M 255.0.255.0
-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1
-A -t 192.0.2.2:80 -s rr
-a -t 192.0.2.2:80 -r 10.0.0.1:80 -m -w 1
-A -t 192.0.2.3:80 -s wlc -p 50
-E -t 192.0.2.3:80 -s wlc -p 50 -M 0.0.0.24
-A -t 192.0.2.4:80 -s wlc -p 50 -M 255.0.255.0
-D -t 192.0.2.4:80
-A -t 192.0.2.4:80 -s rr
-A -t 192.0.2.5:80 -s none
`
	result, err := ipvsadm.Import("saved", []byte(saved))
	if err != nil {
		t.Fatal(err)
	}
	const want = "service tcp://192.0.2.2:80 rr vip external\n" +
		"  server 10.0.0.1:80 nat weight 1\n" +
		"service tcp://192.0.2.4:80 rr vip external\n" +
		reminder +
		"saved:1: left out: -A -t 192.0.2.1:80 -s wlc -p 50 -M 255.0.255.0: service tcp://192.0.2.1:80: netmask 255.0.255.0 is no prefix: not supported\n" +
		"saved:2: left out: -a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1: the service tcp://192.0.2.1:80 is left out\n" +
		"saved:6: left out: -E -t 192.0.2.3:80 -s wlc -p 50 -M 0.0.0.24: service tcp://192.0.2.3:80: netmask 0.0.0.24 is no prefix: not supported\n" +
		"saved:7: left out: -A -t 192.0.2.4:80 -s wlc -p 50 -M 255.0.255.0: service tcp://192.0.2.4:80: netmask 255.0.255.0 is no prefix: not supported\n" +
		"saved:10: left out: -A -t 192.0.2.5:80 -s none: a service without a scheduler is of no use\n"
	if diff := cmp.Diff(want, result.String()); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if got := result.Lacking(); got != 5 {
		t.Errorf("%d things are lacking, want 5", got)
	}
}

// TestImportTooMany says which line has a server too many, and that those before it
// cost what they are: none is copied for each line.
func TestImportTooMany(t *testing.T) {
	var text strings.Builder
	text.WriteString("-A -t 192.0.2.1:80\n")
	for i := range 30000 {
		fmt.Fprintf(&text, "-a -t 192.0.2.1:80 -r 10.0.%d.%d\n", i/250, i%250+1)
	}
	_, err := ipvsadm.Import("saved", []byte(text.String()))
	if want := "saved:1026: -a -t 192.0.2.1:80 -r 10.0.4.25: a service has at most 1024 servers"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	many := strings.Join(strings.SplitAfter(text.String(), "\n")[:1025], "")
	few := strings.Join(strings.SplitAfter(text.String(), "\n")[:103], "")
	if ratio := allocated(t, many) / allocated(t, few); ratio > 30 {
		t.Errorf("ten times the servers take %d times the memory", ratio)
	}
}

// allocated is how many bytes an import allocates in all.
func allocated(t *testing.T, text string) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ipvsadm.Import("saved", []byte(text)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestImportScript is one of commands, with what -S loses.
func TestImportScript(t *testing.T) {
	const script = "# comment\nipvsadm -A -t 192.0.2.1:80\nipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -x 100\nipvsadm -Z\nipvsadm --set 0 0 30\n"
	result, err := ipvsadm.Import("script", []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	const want = "timeouts tcp 0s, tcp-fin 0s, udp 30s\n" +
		"service tcp://192.0.2.1:80 wlc vip external\n" +
		"  server 10.0.0.1:80 dr weight 1 thresholds 100/0\n" +
		"script:4: not carried: -Z: a configuration has no counters\n"
	if diff := cmp.Diff(want, result.String()); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestImportRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"left_twice":   {"-A -t 192.0.2.1:80 -p 50 -M 255.0.255.0\n-A -t 192.0.2.1:80\n", "saved:2: -A -t 192.0.2.1:80: Service already exists"},
		"left_flushed": {"-A -t 192.0.2.1:80 -p 50 -M 255.0.255.0\n-C\n-E -t 192.0.2.1:80\n", "saved:3: -E -t 192.0.2.1:80: No such service"},
		"no_service":   {"-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.2:80 -r 10.0.0.1\n", "saved:2: -a -t 192.0.2.2:80 -r 10.0.0.1: Service not defined"},
		"unreadable":   {"-A -t nonsense:80 -s\n", "saved:1: -A -t nonsense:80 -s: "},
		"listing":      {"-L -n\n", "saved:1: -L -n: -L changes nothing: want commands that do"},
		"twice":        {"-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80\n", "saved:2: -A -t 192.0.2.1:80: Service already exists"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ipvsadm.Import("saved", []byte(tt.text))
			if err == nil || len(err.Error()) < len(tt.want) || err.Error()[:len(tt.want)] != tt.want {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
