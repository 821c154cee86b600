package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// interrupt is a line of /proc/interrupts.
type interrupt struct {
	number int
	name   string // what the driver calls it, such as eth0-TxRx-3
}

// checkInterrupts looks at which CPUs the cards' interrupts go to.
func checkInterrupts(i *inspection, r *report) {
	cpus, err := i.cpus()
	if err != nil {
		r.unknown("", err)
		return
	}
	all, err := i.interrupts()
	if err != nil {
		r.unknown("", err)
		return
	}
	for _, l := range i.named() {
		name := l.Attrs().Name
		var receiving []interrupt
		for _, irq := range all {
			if i.isOf(irq, name, l.Attrs().HardwareAddr.String()) && receives(irq.name) {
				receiving = append(receiving, irq)
			}
		}
		if len(receiving) < 2 {
			continue
		}
		used := map[int]bool{}
		for _, irq := range receiving {
			where, err := i.affinity(irq.number)
			if err != nil {
				r.unknown(name, err)
				continue
			}
			for _, cpu := range where {
				used[cpu] = true
			}
		}
		want := min(len(receiving), cpus)
		if len(used) == 0 || len(used) >= want {
			continue
		}
		why := "XDP runs on the CPU that takes a queue's interrupt: the others forward nothing"
		if i.runs("irqbalance") {
			why += "; irqbalance runs and may move them again (its --banirq keeps it off)"
		}
		r.add(Warning, name, fmt.Sprintf("the %d queues of %s interrupt %d of %d CPUs", len(receiving), name, len(used), cpus), why, i.spreadOut(receiving))
	}
}

// interrupts lists the numbered interrupts.
func (i *inspection) interrupts() ([]interrupt, error) {
	text, err := i.read("proc/interrupts")
	if err != nil {
		return nil, err
	}
	var all []interrupt
	for line := range strings.Lines(text) {
		head, rest, found := strings.Cut(line, ":")
		number, err := strconv.Atoi(strings.TrimSpace(head))
		if !found || err != nil {
			continue // the heading, and the CPUs' own interrupts
		}
		fields := strings.Fields(rest)
		if len(fields) > 0 {
			all = append(all, interrupt{number, fields[len(fields)-1]})
		}
	}
	return all, nil
}

// isOf reports whether an interrupt is of an interface's card: by its driver's
// name for it, or by sysfs.
func (i *inspection) isOf(irq interrupt, name, mac string) bool {
	if strings.HasPrefix(irq.name, name+"-") || strings.Contains(irq.name, "-"+name+"-") {
		return true
	}
	// sysfs shows the network namespace it was mounted in, which may have
	// another interface of the same name.
	folder := "sys/class/net/" + name
	if have, err := i.read(folder + "/address"); err != nil || have != mac {
		return false
	}
	device, err := filepath.EvalSymlinks(i.path(folder + "/device"))
	if err != nil {
		return false // a virtual interface
	}
	for _, vectors := range []string{device, filepath.Dir(device)} { // a virtio device's are its parent's
		if _, err := os.Stat(filepath.Join(vectors, "msi_irqs", strconv.Itoa(irq.number))); err == nil {
			return strings.HasPrefix(irq.name, filepath.Base(device)) || vectors == device
		}
	}
	return false
}

// receives reports whether an interrupt is one that received packets raise, by
// what drivers call theirs.
func receives(name string) bool {
	name = strings.ToLower(name)
	for _, other := range []string{"config", "async", "aq", "mgmnt", "misc", "control", "cmd", "output", "event"} {
		if strings.Contains(name, other) {
			return false
		}
	}
	return !strings.Contains(name, "tx") || strings.Contains(name, "rx") // TxRx receives, tx-3 does not
}

// affinity returns the CPUs that an interrupt goes to.
func (i *inspection) affinity(number int) ([]int, error) {
	folder := fmt.Sprintf("proc/irq/%d/", number)
	text, err := i.read(folder + "effective_affinity_list")
	if missing(err) || err == nil && text == "" {
		text, err = i.read(folder + "smp_affinity_list")
	}
	if err != nil {
		return nil, err
	}
	return parseList(text)
}

// spreadOut is the command that gives each interrupt a CPU of its own.
func (i *inspection) spreadOut(irqs []interrupt) string {
	text, err := i.read("sys/devices/system/cpu/online")
	if err != nil {
		return ""
	}
	cpus, err := parseList(text)
	if err != nil {
		return ""
	}
	slices.SortFunc(irqs, func(a, b interrupt) int { return a.number - b.number })
	var commands []string
	for n, irq := range irqs {
		commands = append(commands, fmt.Sprintf("echo %d > /proc/irq/%d/smp_affinity_list", cpus[n%len(cpus)], irq.number))
	}
	return strings.Join(commands, "; ")
}

// runs reports whether a process of the name runs.
func (i *inspection) runs(name string) bool {
	names, err := filepath.Glob(i.path("proc/[0-9]*/comm"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(names, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.TrimSpace(string(text)) == name
	})
}
