package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// neededBy are the capabilities that running the data plane takes: NET_ADMIN for
// netlink and attaching; for XDP, BPF for maps and programs, and PERFMON so that the
// verifier spares the fast path the guards against speculation. What only the start
// takes (a group for the socket, a low port) is done when the others are dropped.
func neededBy(plane string) []cap.Value {
	if plane == director.PlaneIPVS {
		return []cap.Value{cap.NET_ADMIN}
	}
	return []cap.Value{cap.NET_ADMIN, cap.BPF, cap.PERFMON}
}

// neededByChecks are the capabilities that the checks and notifications of the state
// take: NET_RAW to ping where the host lets nobody open ping sockets; SETUID, SETGID
// and KILL to run commands as another user and to end them. Without commands at its
// start the daemon has them no more: the first ones want a restart.
func neededByChecks(state director.State) []cap.Value {
	var pings, runs bool
	for i := range state.Services {
		h := &state.Services[i].Health
		for j := range h.Checks {
			pings = pings || h.Checks[j].Kind == realserver.CheckICMP
			runs = runs || h.Checks[j].Kind == realserver.CheckScript
		}
		runs = runs || len(h.Notify.Up)+len(h.Notify.Down)+len(h.Notify.QuorumUp)+len(h.Notify.QuorumDown) > 0
	}
	var needed []cap.Value
	if pings {
		needed = append(needed, cap.NET_RAW)
	}
	if runs {
		needed = append(needed, cap.SETUID, cap.SETGID, cap.KILL)
	}
	return needed
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
