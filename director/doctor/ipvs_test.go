package doctor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/doctor"
)

// kernelIPVS are the files of a kernel with IPVS, as its modules and /proc have them.
func kernelIPVS() map[string]string {
	return map[string]string{
		"proc/sys/kernel/osrelease":                      "6.1.0-18-amd64",
		"proc/modules":                                   "ip_vs_rr 16384 1 - Live 0x0\nip_vs 200704 3 ip_vs_rr, Live 0x0",
		"lib/modules/6.1.0-18-amd64/modules.builtin":     "kernel/net/netfilter/ipvs/ip_vs_sh.ko",
		"lib/modules/6.1.0-18-amd64/modules.dep":         "kernel/net/netfilter/ipvs/ip_vs_wlc.ko: kernel/net/netfilter/ipvs/ip_vs.ko\nkernel/net/netfilter/ipvs/ip_vs_pe_sip.ko.xz:",
		"proc/sys/net/ipv4/vs/expire_quiescent_template": "0",
		"sys/module/ip_vs/parameters/conn_tab_bits":      "12",
		"proc/thread-self/net/ip_vs":                     "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
	}
}

func kernelService(t *testing.T, url string, scheduler director.Scheduler) director.Service {
	t.Helper()
	key, err := director.ParseServiceKey(url)
	if err != nil {
		t.Fatal(err)
	}
	return director.Service{Key: key, Scheduler: scheduler}.Normalize()
}

// What is in order says so, and the checks are those of IPVS.
func TestKernelIPVSInOrder(t *testing.T) {
	root := newTree(t, kernelIPVS())
	sip := kernelService(t, "udp://192.0.2.1:5060", director.WeightedLeastConnection)
	sip.Persistence.Engine = director.EngineSIP
	services := []director.Service{
		kernelService(t, "tcp://192.0.2.1:80", director.RoundRobin), kernelService(t, "tcp://192.0.2.1:81", director.SourceHash), sip,
	}
	findings := root.here(t, doctor.Host{Dataplane: director.PlaneIPVS, Services: services})
	for _, check := range []string{"ipvs-kernel", "ipvs-modules", "ipvs-table", "ipvs-templates", "ipvs-foreign"} {
		if found := of(findings, check, ""); len(found) > 0 {
			t.Errorf("%s: %+v, want nothing", check, found)
		}
	}
	for _, f := range root.here(t, doctor.Host{Services: services}) {
		if strings.HasPrefix(f.Check, "ipvs-") {
			t.Errorf("on the data plane xdp: %+v", f)
		}
	}
}

func TestKernelWithoutIPVS(t *testing.T) {
	root := newTree(t, map[string]string{"proc/sys/kernel/osrelease": "6.18.0"})
	host := doctor.Host{Dataplane: director.PlaneIPVS, Services: []director.Service{kernelService(t, "tcp://192.0.2.1:80", director.Maglev)}}
	findings := root.here(t, host)
	f := single(t, of(findings, "ipvs-kernel", ""), "ipvs-kernel", doctor.Error, "the kernel has no IPVS")
	if want := "modprobe ip_vs; echo ip_vs > /etc/modules-load.d/shunt.conf"; f.Fix != want {
		t.Errorf("fix %q, want %q", f.Fix, want)
	}
	single(t, of(findings, "ipvs-modules", ""), "ipvs-modules", doctor.Error, "the kernel has no module ip_vs_mh, and finds none")
	for _, check := range []string{"ipvs-table", "ipvs-templates", "ipvs-foreign"} {
		if found := of(findings, check, ""); len(found) > 0 {
			t.Errorf("%s: %+v, want nothing", check, found)
		}
	}
}

func TestKernelIPVSFindings(t *testing.T) {
	files := kernelIPVS()
	files["proc/thread-self/net/ip_vs"] += "TCP  C0000201:0050 rr\n  -> 0A000001:0050      Route   1      0          0\n" +
		"UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 sh\nFWM  00000007 rr\nFWM  00000009 rr persistent 300 FFFFFFFF\nSCTP C0000209:0B59 rr"
	root := newTree(t, files)
	web := kernelService(t, "tcp://192.0.2.1:80", director.TwoRandomChoices)
	web.Name = "web"
	web.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 32}
	host := doctor.Host{
		Dataplane: director.PlaneIPVS, MaxConnections4: 1 << 20, MaxConnections6: 1 << 18,
		Services: []director.Service{web, kernelService(t, "fwmark6://7", director.RoundRobin)},
	}
	findings := root.here(t, host)
	modules := single(t, of(findings, "ipvs-modules", "ip_vs_twos"), "ipvs-modules", doctor.Error, "the kernel has no module ip_vs_twos, and finds none")
	if want := "these services are refused: web"; modules.Why != want {
		t.Errorf("why %q, want %q", modules.Why, want)
	}
	table := single(t, of(findings, "ipvs-table", ""), "ipvs-table", doctor.Info, "has 4096 buckets (conn_tab_bits=12), for up to 1310720 connections")
	if want := "echo options ip_vs conn_tab_bits=18 > /etc/modprobe.d/shunt.conf"; table.Fix != want {
		t.Errorf("fix %q, want %q", table.Fix, want)
	}
	templates := single(t, of(findings, "ipvs-templates", ""), "ipvs-templates", doctor.Info, "net.ipv4.vs.expire_quiescent_template is 0")
	foreign := of(findings, "ipvs-foreign", "")
	var subjects []string
	for _, f := range foreign {
		subjects = append(subjects, f.Subject)
	}
	if got, want := strings.Join(subjects, " "), "udp://[2001:db8::1]:53 fwmark://9 sctp://192.0.2.9:2905"; got != want {
		t.Errorf("foreign: %s, want %s", got, want)
	}

	root.run(t, templates.Fix)
	root.write(t, "sys/module/ip_vs/parameters/conn_tab_bits", "18")
	root.write(t, "proc/modules", files["proc/modules"]+"\nip_vs_twos 16384 0 - Live 0x0")
	again := root.here(t, host)
	for _, check := range []string{"ipvs-modules", "ipvs-table", "ipvs-templates"} {
		if found := of(again, check, ""); len(found) > 0 {
			t.Errorf("after the fix: %+v", found)
		}
	}
}
