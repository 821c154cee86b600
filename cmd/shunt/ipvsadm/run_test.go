package ipvsadm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// Without a daemon, or the right to its socket, it is as without IPVS.
func TestUnreachable(t *testing.T) {
	const sure = "\nAre you sure that IP Virtual Server is built in the kernel or as module?\n"
	d := &daemon{t: t, socket: filepath.Join(t.TempDir(), "none")}
	for _, line := range []string{"", "-L", "-S", "-A -t 192.0.2.1:80", "-Z", "-L --daemon", "-L --timeout", "-L -c", "-L -t 192.0.2.1:80"} {
		want := result{Err: "Can't initialize ipvs: Protocol not available" + sure + "shunt: shuntd is not running: nothing answers on " + d.socket +
			"\nhint: start it with `shuntd --config FILE`; another socket is given by --socket\n", Status: 2}
		if diff := cmp.Diff(want, d.ipvsadm(line)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
	// What needs no daemon goes on.
	for _, line := range []string{"-h", "-v"} {
		if got := d.ipvsadm(line); got.Status != 0 || got.Err != "" || !strings.HasPrefix(got.Out, "ipvsadm v1.31 ") {
			t.Errorf("%s: %+v", line, got)
		}
	}
	if got := d.ipvsadm("-A"); got != (result{Err: "You need to supply the 'service-address' option for the 'add-service' command\n", Status: 2}) {
		t.Errorf("-A: %+v", got)
	}
	refused := Options{Program: program, Connect: func() (*api.Client, error) {
		return nil, &api.Problem{Code: api.ProblemCodePermission, Detail: "open X: permission denied", Hint: "try sudo"}
	}}
	var errs strings.Builder
	refused.Err, refused.Out = &errs, &errs
	if status := Run(context.Background(), refused); status != 2 {
		t.Errorf("status %d without permission", status)
	}
	want := "Can't initialize ipvs: Permission denied (you must be root)" + sure + "shunt: open X: permission denied\nhint: try sudo\n"
	if diff := cmp.Diff(want, errs.String()); diff != "" {
		t.Errorf("without permission (-want +got):\n%s", diff)
	}
}

// Who interrupts it is not told that there is no IPVS.
func TestInterrupted(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs strings.Builder
	status := Run(ctx, Options{
		Program: program, Args: []string{"-L"}, Out: &errs, Err: &errs,
		Connect: func() (*api.Client, error) { return api.NewSocketClient(d.socket), nil },
	})
	if status != 1 || errs.String() != "shunt: interrupted\n" {
		t.Errorf("status %d, %q", status, errs.String())
	}
}

// An output that cannot be written is an error, as a full disk is for a save file.
func TestOutputFails(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	closed, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	d.script("-A -t 192.0.2.1:80")
	var errs strings.Builder
	status := Run(t.Context(), Options{
		Program: "ipvsadm-save", Args: []string{"-n"}, Out: closed, Err: &errs,
		Connect: func() (*api.Client, error) { return api.NewSocketClient(d.socket), nil },
	})
	if status != 1 || !strings.HasPrefix(errs.String(), "shunt: write the output: ") {
		t.Errorf("status %d, %q", status, errs.String())
	}
}
