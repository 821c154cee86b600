package bpf

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

func TestVerifier(t *testing.T) {
	spec, err := LoadKernel()
	if err != nil {
		t.Fatal(err)
	}
	for n, m := range map[string]uint32{"connections4": 1024, "connections6": 1024, "service_index": 64, "services": 64, "servers": 256, "loads": 256, "recounts": 256, "server_traffic": 256, "words": 65536} {
		spec.Maps[n].MaxEntries = m
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats | ebpf.LogLevelBranch, LogSizeStart: 64 << 20}})
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		l := ve.Log
		cur, n := "main", map[string]int{}
		for _, x := range l {
			if strings.HasPrefix(x, "Validating") || strings.HasPrefix(x, "Func#") {
				cur = x
			}
			n[cur]++
		}
		t.Log(n)
		if len(l) > 70 {
			l = l[len(l)-70:]
		}
		for _, x := range l {
			t.Log(x)
		}
	}
	if err != nil {
		t.Fatalf("%.300v", err)
	}
	for n, p := range c.Programs {
		cur, cnt := "main", map[string]int{}
		for _, x := range strings.Split(p.VerifierLog, "\n") {
			if strings.HasPrefix(x, "Validating") {
				cur = x
			}
			if strings.HasPrefix(x, "processed") || strings.HasPrefix(x,"stack depth") { t.Log(n, x) }
			cnt[cur]++
		}
		t.Log(n, cnt)
	}
}
