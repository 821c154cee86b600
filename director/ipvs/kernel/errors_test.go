package kernel

import (
	"errors"
	"syscall"
	"testing"
)

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  *Error
		is   error
		text string
	}{
		{&Error{Op: OpNewService, Object: "tcp://192.0.2.1:80", Errno: syscall.EEXIST}, ErrServiceExists, "add service tcp://192.0.2.1:80: the service exists already"},
		{&Error{Op: OpNewServer, Object: "x", Errno: syscall.EEXIST}, ErrServerExists, "add server x: the service has this server already"},
		{&Error{Op: OpNewServer, Object: "x", Errno: syscall.ESRCH}, ErrNoService, "add server x: there is no such service"},
		{&Error{Op: OpDeleteServer, Object: "x", Errno: syscall.ENOENT}, ErrNoServer, "remove server x: the service has no such server"},
		{&Error{Op: OpFlush, Errno: syscall.EPERM}, ErrPermission, "remove all services: permission denied: IPVS needs root (CAP_NET_ADMIN)"},
		{&Error{Op: OpOpen, Errno: syscall.ENOPROTOOPT}, ErrNotLoaded, "open IPVS: the kernel has no IPVS: modprobe ip_vs, or use a kernel that has it"},
		{&Error{Op: OpZero, Object: "x", Errno: syscall.EINVAL, Reason: "the address is missing"}, ErrInvalid, "zero counters x: the address is missing"},
		{&Error{Op: OpFlush, Errno: syscall.EIO}, syscall.EIO, "remove all services: input/output error"},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("%q, want %q", got, c.text)
		}
		if !errors.Is(c.err, c.is) || !errors.Is(c.err, c.err.Errno) {
			t.Errorf("%v does not match %v and %d", c.err, c.is, c.err.Errno)
		}
		var typed *Error
		if !errors.As(error(c.err), &typed) || typed.Op != c.err.Op {
			t.Errorf("%v is not found as an *Error", c.err)
		}
	}
	if err := (&Error{Op: OpNewServer, Errno: syscall.ENOENT}); errors.Is(err, ErrNoServer) {
		t.Error("what ENOENT means to one operation it means to another")
	}
}
