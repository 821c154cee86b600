package bpf_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// The numbers of abi.h, the table of names and the director's schedulers are the
// same.
func TestSchedulersOfTheABI(t *testing.T) {
	spec, err := bpf.LoadKernel()
	if err != nil {
		t.Fatal(err)
	}
	var numbers *btf.Enum
	if err := spec.Types.TypeByName("scheduler", &numbers); err != nil {
		t.Fatal(err)
	}
	abi := map[string]bpf.KernelScheduler{}
	for _, value := range numbers.Values {
		abi[strings.ToLower(strings.TrimPrefix(value.Name, "SCHEDULER_"))] = bpf.KernelScheduler(value.Value)
	}
	named := map[string]bpf.KernelScheduler{}
	for number, name := range bpf.Schedulers {
		if name != "" {
			named[name] = bpf.KernelScheduler(number)
		}
	}
	if diff := cmp.Diff(abi, named); diff != "" {
		t.Errorf("bpf.Schedulers against enum scheduler of abi.h (-want +got):\n%s", diff)
	}
	var known []string
	for _, name := range director.Schedulers() {
		known = append(known, string(name))
		if number := bpf.SchedulerNumber(string(name)); number == 0 || bpf.SchedulerName(uint8(number)) != string(name) {
			t.Errorf("%s has the number %d, whose name is %q", name, number, bpf.SchedulerName(uint8(number)))
		}
	}
	for name := range named {
		if !slices.Contains(known, name) {
			t.Errorf("%s is not one of director.Schedulers()", name)
		}
	}
	if number, name := bpf.SchedulerNumber(""), bpf.SchedulerName(255); number != 0 || name != "" {
		t.Errorf("no name has the number %d, 255 the name %q", number, name)
	}
}

// The programs and the model of lblcr leave a set alone for the same time.
func TestExpirationOfSets(t *testing.T) {
	if bpf.LBLCRExpiration != scheduler.CacheExpiration {
		t.Errorf("the programs have %v, the model %v", bpf.LBLCRExpiration, scheduler.CacheExpiration)
	}
}
