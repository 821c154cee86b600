package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"
)

// release is a kernel's version, such as 6.1.
type release struct{ major, minor int }

func (r release) before(o release) bool {
	return r.major < o.major || r.major == o.major && r.minor < o.minor
}

// oldest is the oldest kernel that Shunt is tested on.
var oldest = release{6, 1}

// needs is the README's table of what Shunt asks of the kernel.
var needs = []struct {
	since   release
	what    string
	without string // what happens on an older kernel
	fatal   bool
}{
	{release{5, 9}, "XDP by bpf_link", "shuntd does not start", true},
	{release{5, 14}, "programs of type syscall", "shuntd does not start", true},
	{release{5, 16}, "managed neighbours", "the daemon has servers' neighbours probed; nobody does while it is stopped", false},
	{release{5, 17}, "bpf_loop", "shuntd does not start", true},
	{release{5, 18}, "xdp.frags", "shuntd does not start", true},
}

func (i *inspection) release() (release, string, error) {
	text, err := i.read("proc/sys/kernel/osrelease")
	if err != nil {
		return release{}, "", err
	}
	var r release
	if _, err := fmt.Sscanf(text, "%d.%d", &r.major, &r.minor); err != nil {
		return release{}, text, fmt.Errorf("read kernel version %q: %w", text, err)
	}
	return r, text, nil
}

func checkKernel(i *inspection, r *report) {
	const fix = "apt-get install linux-image-amd64 # 6.1 or later, then reboot"
	have, text, err := i.release()
	if err != nil {
		r.unknown("", err)
		return
	}
	var lacking, without []string
	severity := Warning
	for _, n := range needs {
		if !have.before(n.since) {
			continue
		}
		lacking = append(lacking, fmt.Sprintf("%s (since %d.%d)", n.what, n.since.major, n.since.minor))
		if n.fatal {
			severity = Error
		}
		without = append(without, n.what+": "+n.without)
	}
	switch {
	case len(lacking) > 0:
		r.add(severity, "", fmt.Sprintf("kernel %s lacks %s", text, strings.Join(lacking, ", ")),
			"without "+strings.Join(without, "; without "), fix)
	case have.before(oldest):
		r.add(Warning, "", fmt.Sprintf("kernel %s is older than 6.1", text),
			"6.1 is the oldest kernel that Shunt's programs are tested on; the verifier of an older one may refuse them", fix)
	}
}

func checkJIT(i *inspection, r *report) {
	const enable = "proc/sys/net/core/bpf_jit_enable"
	switch on, err := i.number(enable); {
	case missing(err): // only the first network namespace has it
		checkCompiled(r)
	case err != nil:
		r.unknown("", err)
	case on == 0:
		r.add(Warning, "", "the BPF JIT is off (net.core.bpf_jit_enable is 0)",
			"programs are interpreted, which takes several times the CPU for each packet", "sysctl -w net.core.bpf_jit_enable=1")
	case on == 2:
		r.add(Info, "", "the BPF JIT is in debug mode (net.core.bpf_jit_enable is 2)",
			"the kernel logs the code of every program it loads", "sysctl -w net.core.bpf_jit_enable=1")
	}
	switch harden, err := i.number("proc/sys/net/core/bpf_jit_harden"); {
	case missing(err): // another network namespace, or a kernel without a JIT
	case errors.Is(err, fs.ErrPermission): // shown to root alone, and only worth a remark
	case err != nil:
		r.unknown("", err)
	case harden == 2:
		r.add(Info, "", "the BPF JIT is hardened for root's programs too (net.core.bpf_jit_harden is 2)",
			"constants are blinded, which adds instructions for each packet; 1 blinds those of unprivileged users alone", "sysctl -w net.core.bpf_jit_harden=1")
	}
}

// checkCompiled looks at a program that the kernel has loaded: whether it was
// compiled.
func checkCompiled(r *report) {
	id, err := ebpf.ProgramGetNextID(0)
	if errors.Is(err, fs.ErrNotExist) {
		r.add(Unknown, "", "no BPF program is loaded, and net.core.bpf_jit_enable is not seen from this network namespace",
			"without the BPF JIT each packet takes several times the CPU", "sysctl -w net.core.bpf_jit_enable=1 # in the host's network namespace")
		return
	}
	if err != nil {
		r.unknown("", fmt.Errorf("look for loaded BPF programs: %w", err))
		return
	}
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		r.unknown("", fmt.Errorf("look at BPF program %d: %w", id, err))
		return
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		r.unknown("", fmt.Errorf("look at BPF program %d: %w", id, err))
	} else if size, err := info.JitedSize(); err != nil || size == 0 {
		r.add(Warning, "", fmt.Sprintf("the BPF JIT is off: program %d is not compiled", id),
			"programs are interpreted, which takes several times the CPU for each packet", "sysctl -w net.core.bpf_jit_enable=1 # in the host's network namespace")
	}
}

func checkClock(i *inspection, r *report) {
	const folder = "sys/devices/system/clocksource/clocksource0/"
	current, err := i.read(folder + "current_clocksource")
	if err != nil {
		r.unknown("", err)
		return
	}
	switch current {
	case "hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies":
	default:
		return // tsc, arch_sys_counter, or a hypervisor's page: read without leaving the CPU
	}
	available, err := i.read(folder + "available_clocksource")
	if err != nil {
		r.unknown("", err)
		return
	}
	fix := ""
	for _, better := range strings.Fields(available) {
		if better == "tsc" || better == "kvm-clock" || better == "arch_sys_counter" {
			fix = "echo " + better + " > /" + folder + "current_clocksource"
			break
		}
	}
	what := fmt.Sprintf("the clock source is %s (available: %s)", current, available)
	if fix == "" {
		what += "; the kernel found no fast one: see dmesg for why the TSC was given up"
	}
	r.add(Warning, "", what, "each reading of the time goes to a chip, which costs the stack, timestamps and health checks about a microsecond", fix)
}
