package ipvsadm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
)

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
		"saved: not carried: ipvsadm -S: it saves no thresholds (-x, -y), timeouts, sync daemons and sysctls: `shunt import --adopt` takes them from the kernel\n"
	if diff := cmp.Diff(want, result.String()); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
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
		"no_service": {"-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.2:80 -r 10.0.0.1\n", "saved:2: -a -t 192.0.2.2:80 -r 10.0.0.1: Service not defined"},
		"unreadable": {"-A -t nonsense:80 -s\n", "saved:1: "},
		"listing":    {"-L -n\n", "saved:1: -L changes nothing: want commands that do"},
		"twice":      {"-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80\n", "saved:2: -A -t 192.0.2.1:80: Service already exists"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ipvsadm.Import("saved", []byte(tt.text))
			if err == nil || len(err.Error()) < len(tt.want) || err.Error()[:len(tt.want)] != tt.want {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
