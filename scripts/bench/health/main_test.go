package main

import (
	"os"
	"testing"
	"time"
)

// TestMain is the servers where measure starts this binary as its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "-serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestMeasureAsksServersThatAnswer(t *testing.T) {
	before := processorTime()
	if err := measure(t.Context(), 20, 500*time.Millisecond, 600*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if processorTime() <= before || maxResident() < 1<<20 {
		t.Errorf("processor time %v of %v, %d bytes resident", processorTime(), before, maxResident())
	}
}
