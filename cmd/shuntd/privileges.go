package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/realserver/health"
	"github.com/shunt-lb/shunt/realserver/script"
)

// neededBy are the capabilities that running takes: NET_ADMIN for netlink and
// attaching; for XDP, BPF for maps and programs, and PERFMON so that the verifier spares
// the fast path the guards against speculation; NET_RAW to ping servers where the host
// lets nobody open ping sockets, which adds nothing to what NET_ADMIN and BPF can do to
// packets. What only the start takes (a group for the socket, a low port, SYS_ADMIN for
// the namespace that checks come from) is done when the others are dropped.
func neededBy(plane string) []cap.Value {
	if plane == director.PlaneIPVS {
		return []cap.Value{cap.NET_ADMIN, cap.NET_RAW}
	}
	return []cap.Value{cap.NET_ADMIN, cap.BPF, cap.PERFMON, cap.NET_RAW}
}

// becoming are the capabilities that it takes to run commands as other users, and to end
// them: the helper's alone.
func becoming() []cap.Value { return []cap.Value{cap.SETUID, cap.SETGID, cap.KILL} }

// helperCommand is the command line by which the daemon starts its helper; asRoot lets
// it run commands as root.
const (
	helperCommand = "run-commands"
	asRoot        = "as-root"
)

// startHelper starts what runs the commands of checks and notifications, now and later;
// nil where that would have no right that the daemon has not. It may become root only if
// the state, or the script user, has a command be root's by now.
func startHelper(settings config.Settings, state director.State) (*script.Helper, error) {
	have := cap.GetProc()
	for _, value := range becoming() {
		if held, err := have.GetFlag(cap.Permitted, value); err != nil || !held {
			return nil, err
		}
	}
	cmd := exec.Command("/proc/self/exe", helperCommand, "--dataplane", settings.Dataplane)
	if runsAsRoot(settings, state) {
		cmd.Args = append(cmd.Args, "--"+asRoot)
	}
	cmd.Args[0] = "shuntd"
	// No word of the service manager's is for it, nor an interrupt of the terminal.
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return script.StartHelper(cmd)
}

// runsAsRoot reports whether a command is root's.
func runsAsRoot(settings config.Settings, state director.State) bool {
	users := []string{cmp.Or(settings.ScriptUser, health.DefaultScriptUser)}
	for i := range state.Services {
		for _, check := range state.Services[i].Health.Checks {
			if check.Script != nil && check.Script.User != "" {
				users = append(users, check.Script.User)
			}
		}
	}
	return slices.ContainsFunc(users, script.IsRoot)
}

// help is `shuntd run-commands`, which the daemon starts for itself: it gives up every
// right but to become others, and runs what it is told to. Of root's commands it would
// take away what they are root's for: for their sake it keeps what the daemon has.
func help(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	needed := becoming()
	if c.Bool(asRoot) {
		needed = append(needed, neededBy(c.String("dataplane"))...)
	}
	if _, err := dropPrivileges(needed); err != nil {
		return fmt.Errorf("give up what running commands does not take: %w", err)
	}
	return script.Serve(c.Bool(asRoot))
}

// dropPrivileges gives up, in all threads and for good, every capability but
// those needed, for this process and those it starts. A user without privileges
// has none to drop. It returns what is left.
func dropPrivileges(needed []cap.Value) (string, error) {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return "", fmt.Errorf("set no_new_privs: %w", errno)
	}
	have := cap.GetProc()
	keep := cap.NewSet()
	for _, value := range needed {
		held, err := have.GetFlag(cap.Permitted, value)
		if err != nil {
			return "", fmt.Errorf("read capability %s: %w", value, err)
		}
		if !held {
			continue
		}
		for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
			if err := keep.SetFlag(flag, true, value); err != nil {
				return "", fmt.Errorf("keep capability %s: %w", value, err)
			}
		}
		// A child, such as nft for the doctor, has them only if they are
		// inheritable and ambient, unless it is root's.
		if err := keep.SetFlag(cap.Inheritable, true, value); err != nil {
			return "", fmt.Errorf("keep capability %s: %w", value, err)
		}
	}
	if err := dropBounding(have, needed); err != nil {
		return "", err
	}
	if err := keep.SetProc(); err != nil {
		return "", fmt.Errorf("drop capabilities: %w", err)
	}
	return cap.GetProc().String(), nil
}

// dropBounding bounds what programs this process starts can ever have; that
// takes CAP_SETPCAP, which root has and the unit's user has no need of.
func dropBounding(have *cap.Set, needed []cap.Value) error {
	if may, err := have.GetFlag(cap.Effective, cap.SETPCAP); err != nil || !may {
		return err
	}
	for value := cap.Value(0); value < cap.MaxBits(); value++ {
		if slices.Contains(needed, value) {
			continue
		}
		if err := cap.DropBound(value); err != nil {
			return fmt.Errorf("drop capability %s from the bounding set: %w", value, err)
		}
	}
	return nil
}
