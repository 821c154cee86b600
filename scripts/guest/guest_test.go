// Package guest proves that the guest of run.sh is what the other tests take it
// for: Debian 12's kernel 6.1 with a BPF JIT, bpffs, veth and, on demand, a
// clock that counts instructions. Its test runs inside the guest only; the
// variable SHUNT_GUEST says so:
//
//	SHUNT_GUEST=1 CGO_ENABLED=0 go test -exec "$PWD/scripts/guest/run.sh" ./scripts/guest
//	SHUNT_GUEST=icount CGO_ENABLED=0 go test -exec "$PWD/scripts/guest/run.sh -i" ./scripts/guest
package guest

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

func inGuest(t *testing.T) string {
	t.Helper()
	mode := os.Getenv("SHUNT_GUEST")
	if mode == "" {
		t.Skip("runs in the guest kernel only: see the package comment")
	}
	return mode
}

func TestKernelIsTheOldestSupported(t *testing.T) {
	inGuest(t)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	t.Logf("kernel %s", release)
	if !strings.HasPrefix(release, "6.1.") {
		t.Errorf("kernel %s, want 6.1", release)
	}
	for path, want := range map[string]string{"/proc/sys/net/core/bpf_jit_enable": "1", "testdata/here": "yes"} {
		text, err := os.ReadFile(path)
		if got := strings.TrimSpace(string(text)); err != nil || got != want {
			t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &fs); err != nil || uint32(fs.Type) != unix.BPF_FS_MAGIC {
		t.Errorf("/sys/fs/bpf is no bpffs: type %#x, %v", fs.Type, err)
	}
}

// With run.sh -i the kernel's clock counts instructions: a program that is
// longer by n instructions takes n ns longer, every time.
func TestClockCountsInstructions(t *testing.T) {
	mode := inGuest(t)
	const more, runs = 1000, 2000
	short, long := cost(t, 0, runs), cost(t, more, runs)
	t.Logf("XDP_PASS: %d ns; with %d more instructions: %d ns", short, more, long)
	if mode != "icount" {
		return
	}
	// The timer interrupts once in 4 ms and costs some thousands.
	if got := long - short; got < more*99/100 || got > more*103/100 {
		t.Errorf("%d more instructions took %d ns", more, got)
	}
	if again := cost(t, more, runs); max(again, long)-min(again, long) > long/100 {
		t.Errorf("the same program took %d ns, then %d", long, again)
	}
}

// cost returns the mean time of a program that ends after n additions.
func cost(t *testing.T, n, runs int) int64 {
	t.Helper()
	instructions := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for range n {
		instructions = append(instructions, asm.Add.Imm(asm.R0, 1))
	}
	instructions = append(instructions, asm.Mov.Imm(asm.R0, 2), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Instructions: instructions, License: "GPL"})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	verdict, mean, err := program.Benchmark(make([]byte, 64), runs, nil)
	if err != nil || verdict != 2 {
		t.Fatalf("verdict %d, %v, want XDP_PASS", verdict, err)
	}
	return int64(mean)
}
