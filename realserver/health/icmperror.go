package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// icmpErrors are what the kernel makes of ICMP errors (kernel: net/ipv4/icmp.c,
// icmp_err_convert; net/ipv6/icmp.c, icmpv6_err_convert).
var icmpErrors = []unix.Errno{
	unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENOPROTOOPT, unix.ECONNREFUSED, unix.EMSGSIZE, unix.EOPNOTSUPP,
	unix.EHOSTDOWN, unix.ENONET, unix.EACCES, unix.EPROTO,
}

// isICMPError reports whether a socket's error may be one that ICMP told it.
func isICMPError(err error) bool {
	var number unix.Errno
	return errors.As(err, &number) && slices.Contains(icmpErrors, number)
}

// tellErrors has the kernel tell a socket of every ICMP error, and keep it in the error
// queue (ip(7), IP_RECVERR). Without it a UDP socket hears of refusals alone: that a host
// or network is unreachable counts as passing (kernel: net/ipv4/udp.c, __udp4_lib_err).
func tellErrors(conn any, six bool) error {
	level, option := unix.SOL_IP, unix.IP_RECVERR
	if six {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
		return err
	}
	return setErr
}

// icmpError is an entry of an error queue.
type icmpError struct {
	to, from   netip.Addr // whom the quoted packet was for, and who says it
	kind, code uint8
	quoted     []byte // from the ICMP or UDP header on
}

// maxErrors bounds how many entries are taken at once; the next read tells of the others.
const maxErrors = 64

// queuedErrors takes what is in the error queue of a socket.
func queuedErrors(conn any) (all []icmpError) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { // Fails on closed sockets alone.
		for range maxErrors {
			packet, control := make([]byte, 64), make([]byte, 256)
			n, size, _, to, err := unix.Recvmsg(int(fd), packet, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			if e, ok := readICMPError(packet[:n], control[:size], to); ok {
				all = append(all, e)
			}
		}
	})
	return all
}

// readICMPError reads an entry: struct sock_extended_err and the address of who says it
// (kernel: include/uapi/linux/errqueue.h).
func readICMPError(packet, control []byte, to unix.Sockaddr) (icmpError, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return icmpError{}, false
	}
	e := icmpError{quoted: packet}
	switch to := to.(type) {
	case *unix.SockaddrInet4:
		e.to = netip.AddrFrom4(to.Addr)
	case *unix.SockaddrInet6:
		e.to = netip.AddrFrom16(to.Addr).Unmap()
	}
	for _, m := range messages {
		four := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		const fixed = 16 // bytes before the address
		if !four && !six || len(m.Data) < fixed {
			continue
		}
		origin := m.Data[4]
		if origin != unix.SO_EE_ORIGIN_ICMP && origin != unix.SO_EE_ORIGIN_ICMP6 {
			continue
		}
		e.kind, e.code = m.Data[5], m.Data[6]
		from := m.Data[fixed:]
		switch {
		case len(from) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(from) == unix.AF_INET:
			e.from, _ = netip.AddrFromSlice(from[4:8])
		case len(from) >= unix.SizeofSockaddrInet6 && binary.NativeEndian.Uint16(from) == unix.AF_INET6:
			e.from, _ = netip.AddrFromSlice(from[8:24])
		}
		return e, e.to.IsValid()
	}
	return icmpError{}, false
}

// unreachableText names what an ICMP destination unreachable says, by its code (RFC 792,
// RFC 1812 §5.2.7.1; of ICMPv6 RFC 4443 §3.1).
func unreachableText(six bool, code int, from netip.Addr) error {
	names, protocol := map[int]string{
		0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
		9: "network prohibited", 10: "host prohibited", 13: "administratively prohibited",
	}, "ICMP"
	if six {
		names, protocol = map[int]string{
			0: "no route", 1: "administratively prohibited", 2: "beyond the scope of the source address",
			3: "address unreachable", 4: "port unreachable", 5: "source address refused", 6: "route rejected",
		}, "ICMPv6"
	}
	name := names[code]
	if name == "" {
		name = fmt.Sprintf("unreachable, code %d", code)
	}
	return fmt.Errorf("%s (%s, from %s)", name, protocol, from)
}
