package doctor_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
)

func TestQueues(t *testing.T) {
	fourCPUs := map[string]string{"sys/devices/system/cpu/online": "0-2,5"}
	t.Run("veth", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "ip link add veth0 numrxqueues 4 numtxqueues 4 type veth peer name veth1 && ethtool -L veth0 rx 1")
		b.host.Interfaces, b.host.Root = []string{"veth0"}, string(newTree(t, fourCPUs))
		b.cures("queues", "veth0", doctor.Info, "veth0 receives by 1 queue, for 4 CPUs")
	})
	// What other drivers say needs their cards: one stands in.
	tests := []struct {
		name, driver string
		queues       doctor.Queues
		severity     doctor.Severity
		words, fix   string
	}{
		{"too_few", "ice", doctor.Queues{RX: 2, TX: 2, Combined: 2, MaxRX: 8, MaxTX: 8, MaxCombined: 8}, doctor.Warning, "receives by 2 queues, for 4 CPUs", "ethtool -L eth0 combined 4"},
		{"no_more", "ice", doctor.Queues{RX: 2, TX: 4, MaxRX: 2, MaxTX: 4}, doctor.Info, "its card has no more", ""},
		{"few_to_send_by", "mlx4_en", doctor.Queues{RX: 4, TX: 2, MaxRX: 4, MaxTX: 8}, doctor.Info, "sends by 2 of its card's 8 queues", "ethtool -L eth0 tx 4"},
		{"ena", "ena", doctor.Queues{RX: 4, TX: 4, Combined: 4, MaxRX: 4, MaxTX: 4, MaxCombined: 4}, doctor.Error, "uses 4 of the 4 queues", "ethtool -L eth0 combined 2"},
		{"virtio", "virtio_net", doctor.Queues{RX: 4, TX: 4, Combined: 4, MaxRX: 4, MaxTX: 4, MaxCombined: 4}, doctor.Info, "would be 8", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, directortest.OneArmed)
			b.host.Root = string(newTree(t, fourCPUs))
			b.host.NIC = &card{driver: tt.driver, queues: map[string]doctor.Queues{"eth0": tt.queues}}
			if f := b.wants("queues", "eth0", tt.severity, tt.words); f.Fix != tt.fix {
				t.Errorf("fix %q, want %q", f.Fix, tt.fix)
			}
			b.host.NIC = &card{driver: "ice", queues: map[string]doctor.Queues{"eth0": {RX: 4, TX: 4, Combined: 4, MaxRX: 8, MaxTX: 8, MaxCombined: 8}}}
			b.wantsNone("queues", "")
		})
	}
}

// A veth has no hash to configure: a card stands in.
func TestRSS(t *testing.T) {
	symmetric := []byte{0x6d, 0x5a, 0x6d, 0x5a}
	b := newBed(t, directortest.TwoArmed)
	b.host.Services = b.host.Services[:1] // tcp4, nat
	two := doctor.Queues{RX: 2, TX: 2, Combined: 2, MaxCombined: 2}
	nic := &card{queues: map[string]doctor.Queues{"eth0": two, "eth1": two}}
	b.host.NIC = nic
	set := func(client, server doctor.Hashing) {
		nic.hashing = map[string]doctor.Hashing{"eth0": client, "eth1": server}
	}
	hashing := func(fields string, key []byte, queues ...uint32) doctor.Hashing {
		return doctor.Hashing{Fields: map[string]string{"tcp4": fields, "udp4": fields}, Key: key, Indirection: queues}
	}

	set(hashing("s", symmetric, 0, 1), hashing("d", symmetric, 0, 1))
	b.wantsNone("rss", "")

	set(hashing("sdfn", symmetric, 0, 1), hashing("sdfn", []byte{1, 2, 3, 4}, 0, 1))
	f := b.wants("rss", "tcp4", doctor.Info, "eth0 hashes sdfn, eth1 hashes sdfn")
	if want := "ethtool -N eth0 rx-flow-hash tcp4 s && ethtool -N eth1 rx-flow-hash tcp4 d && ethtool -X eth1 hkey 6d:5a:6d:5a"; f.Fix != want {
		t.Errorf("fix %q, want %q", f.Fix, want)
	}

	set(hashing("s", symmetric, 0, 0, 0), hashing("d", symmetric, 0, 1))
	if f := b.wants("rss", "eth0", doctor.Warning, "has 2 queues and spreads packets over 1"); f.Fix != "ethtool -X eth0 equal 2" {
		t.Errorf("fix %q", f.Fix)
	}

	set(hashing("", symmetric, 0, 1), hashing("d", symmetric, 0, 1))
	if f := b.wants("rss", "eth0", doctor.Warning, "eth0 hashes nothing of tcp4 packets"); f.Fix != "ethtool -N eth0 rx-flow-hash tcp4 sdfn" {
		t.Errorf("fix %q", f.Fix)
	}

	udp, err := director.ParseServiceKey("udp://192.0.2.10:53")
	if err != nil {
		t.Fatal(err)
	}
	b.host.Services[0].Key = udp
	set(hashing("sd", symmetric, 0, 1), doctor.Hashing{})
	if f := b.wants("rss", "eth0", doctor.Info, "the addresses of udp4 packets and not their ports"); f.Fix != "ethtool -N eth0 rx-flow-hash udp4 sdfn" {
		t.Errorf("fix %q", f.Fix)
	}
}

// Interrupts are the machine's: a tree stands in.
func TestInterrupts(t *testing.T) {
	b := newBed(t, directortest.OneArmed)
	mac := b.link("eth0").Attrs().HardwareAddr.String()
	lines := map[string]string{
		"driver's_names": "           CPU0       CPU1\n 40:  1 2 PCI-MSIX-0000:00:03.0 0-edge eth0-TxRx-0\n 41:  1 2 PCI-MSIX-0000:00:03.0 1-edge eth0-TxRx-1\n 42: 0 0 PCI-MSIX 2-edge eth0-async\nNMI: 0 0 Non-maskable interrupts",
		"virtio":         "           CPU0       CPU1\n 39:  0 0 PCI-MSIX-0000:00:03.0 0-edge virtio2-config\n 40:  1 2 PCI-MSIX-0000:00:03.0 1-edge virtio2-input.0\n 41:  1 2 PCI-MSIX-0000:00:03.0 2-edge virtio2-input.1\n 42: 5 5 PCI-MSIX-0000:00:03.0 3-edge virtio2-output.0\n 43: 5 5 PCI-MSIX-0000:00:04.0 3-edge virtio3-input.0",
	}
	for name, text := range lines {
		t.Run(name, func(t *testing.T) {
			root := newTree(t, map[string]string{
				"proc/interrupts": text, "sys/devices/system/cpu/online": "0-3",
				"proc/irq/40/effective_affinity_list": "2", "proc/irq/40/smp_affinity_list": "2",
				"proc/irq/41/effective_affinity_list": "2", "proc/irq/41/smp_affinity_list": "2",
				"sys/class/net/eth0/address": mac, "sys/class/net/eth0/device/here": "",
				"proc/77/comm": "irqbalance",
			})
			if name == "virtio" {
				root = virtioTree(t, mac, text)
			}
			in := b.host
			in.Root = string(root)
			f := single(t, of(inspectIn(t, b.Director, in), "irq", "eth0"), "irq", doctor.Warning, "the 2 queues of eth0 interrupt 1 of 4 CPUs")
			if name != "virtio" && !strings.Contains(f.Why, "irqbalance runs") {
				t.Errorf("why %q: irqbalance runs", f.Why)
			}
			if want := "echo 0 > /proc/irq/40/smp_affinity_list; echo 1 > /proc/irq/41/smp_affinity_list"; f.Fix != want {
				t.Errorf("fix %q, want %q", f.Fix, want)
			}
			root.run(t, f.Fix)
			for _, irq := range []string{"40", "41"} { // the kernel follows where it can
				root.write(t, "proc/irq/"+irq+"/effective_affinity_list", map[string]string{"40": "0", "41": "1"}[irq])
			}
			if found := of(inspectIn(t, b.Director, in), "irq", ""); len(found) > 0 {
				t.Errorf("after %s: %+v", f.Fix, found)
			}
		})
	}
}

// virtioTree is a tree in which the interface is a virtio device, whose
// interrupts are those of its parent in sysfs.
func virtioTree(t *testing.T, mac, interrupts string) tree {
	t.Helper()
	const device = "sys/devices/pci0000:00/0000:00:03.0/virtio2"
	files := map[string]string{
		"proc/interrupts": interrupts, "sys/devices/system/cpu/online": "0-3",
		device + "/vendor": "0x1af4", "sys/class/net/eth0/address": mac,
	}
	for _, irq := range []int{39, 40, 41, 42} {
		files[fmt.Sprintf("sys/devices/pci0000:00/0000:00:03.0/msi_irqs/%d", irq)] = "msix"
		files[fmt.Sprintf("proc/irq/%d/effective_affinity_list", irq)] = "2"
		files[fmt.Sprintf("proc/irq/%d/smp_affinity_list", irq)] = "2"
	}
	root := newTree(t, files)
	symlink(t, filepath.Join(string(root), device), filepath.Join(string(root), "sys/class/net/eth0/device"))
	return root
}
