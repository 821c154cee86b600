package ipvsadm

import (
	"strings"
	"syscall"
)

// Refusal returns the line that ipvsadm writes where the kernel answers the
// operation with the error (libipvs.c, ipvs_strerror).
func Refusal(o Operation, errno syscall.Errno) string {
	if text, found := refusals[refusal{o, errno}]; found {
		return text
	}
	if text, found := commonRefusals[errno]; found {
		return text
	}
	// Package syscall has the C library's texts, but for the capital.
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

type refusal struct {
	operation Operation
	errno     syscall.Errno
}

const (
	noSuchService = "No such service"
	notDefined    = "Service not defined"
	noSuchServer  = "No such destination"
	noSuchName    = "Scheduler or persistence engine not found"
)

var refusals = map[refusal]string{
	{AddService, syscall.EEXIST}:   "Service already exists",
	{AddService, syscall.ENOENT}:   noSuchName,
	{EditService, syscall.ESRCH}:   noSuchService,
	{EditService, syscall.ENOENT}:  noSuchName,
	{DeleteService, syscall.ESRCH}: noSuchService,
	{Zero, syscall.ESRCH}:          noSuchService,
	{AddServer, syscall.ESRCH}:     notDefined,
	{AddServer, syscall.EEXIST}:    "Destination already exists",
	{EditServer, syscall.ESRCH}:    notDefined,
	{EditServer, syscall.ENOENT}:   noSuchServer,
	{DeleteServer, syscall.ESRCH}:  notDefined,
	{DeleteServer, syscall.ENOENT}: noSuchServer,
	{StartDaemon, syscall.EEXIST}:  "Daemon has already run",
	{StopDaemon, syscall.ESRCH}:    "No daemon is running",
	{List, syscall.ESRCH}:          noSuchService,
	{Save, syscall.ESRCH}:          noSuchService,
}

var commonRefusals = map[syscall.Errno]string{
	syscall.EPERM:        "Permission denied (you must be root)",
	syscall.EINVAL:       "Invalid operation.  Possibly wrong module version, address not unicast, ...",
	syscall.ENOPROTOOPT:  "Protocol not available",
	syscall.ENOMEM:       "Memory allocation problem",
	syscall.EOPNOTSUPP:   "Operation not supported with IPv6",
	syscall.EAFNOSUPPORT: "Operation not supported with specified address family",
	syscall.EMSGSIZE:     "Module is wrong version",
}
