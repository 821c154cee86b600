package kernel

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	connectionsFile = "/proc/net/ip_vs_conn"
	// maxLine is far above the kernel's longest line, of some 300 octets.
	maxLine = 64 << 10
)

// Connections is described in Driver. The file is of the driver's namespace. It
// is read in parts, between which the table goes on changing.
func (g *Genetlink) Connections(ctx context.Context) iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		f, err := g.socket.open(ctx, "ip_vs_conn")
		if errors.Is(err, fs.ErrNotExist) {
			err = &Error{Op: OpConnections, Errno: syscall.ENOPROTOOPT}
		}
		if err != nil {
			yield(Connection{}, err)
			return
		}
		defer f.Close()
		for c, err := range ReadConnections(f) {
			if err == nil {
				err = ctx.Err()
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// open opens a file of /proc/net of the driver's namespace.
func (s *socket) open(ctx context.Context, name string) (f *os.File, err error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	err = s.namespace.do(func() error {
		f, err = os.Open("/proc/thread-self/net/" + name)
		return err
	})
	return f, err
}

// ReadConnections reads the text of /proc/net/ip_vs_conn. What stands behind the
// columns that are known is passed over. It holds one line at a time, and ends
// with the first error, which names the line.
func ReadConnections(r io.Reader) iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		number := 0
		for lines.Scan() {
			number++
			if number == 1 { // titles
				if !strings.HasPrefix(lines.Text(), "Pro ") {
					yield(Connection{}, fmt.Errorf("%s:1: %q instead of titles", connectionsFile, lines.Text()))
					return
				}
				continue
			}
			c, err := parseConnection(lines.Text())
			if err != nil {
				yield(Connection{}, fmt.Errorf("%s:%d: %q: %w", connectionsFile, number, lines.Text(), err))
				return
			}
			if !yield(c, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Connection{}, fmt.Errorf("%s:%d: %w", connectionsFile, number+1, err))
		}
	}
}

// parseConnection reads a line (kernel: ip_vs_conn.c, ip_vs_conn_seq_show):
//
//	TCP C6336407 9C40 C0000201 0050 0A00020B 1F90 ESTABLISHED     899
//	UDP C6336407 0000 C0000201 13C4 0A00020B 13C4 NONE            300 sip call-id
//
// where IPv6 addresses are eight groups of four digits. The server's address may
// be of the other family.
func parseConnection(line string) (Connection, error) {
	f := strings.Fields(line)
	if len(f) < 9 {
		return Connection{}, fmt.Errorf("%d columns, want 9", len(f))
	}
	protocol, err := parseProtocol(f[0])
	if err != nil {
		return Connection{}, err
	}
	c := Connection{Protocol: protocol, State: f[7]}
	for i, address := range []*netip.AddrPort{&c.Client, &c.Virtual, &c.Server} {
		if *address, err = parseHex(f[1+2*i], f[2+2*i]); err != nil {
			return Connection{}, err
		}
	}
	if c.Client.Addr().BitLen() != c.Virtual.Addr().BitLen() {
		return Connection{}, errors.New("client and virtual address are of two families")
	}
	expires, err := strconv.ParseUint(f[8], 10, 32)
	if err != nil {
		return Connection{}, fmt.Errorf("time to live: %w", err)
	}
	c.Expires = time.Duration(expires) * time.Second
	if len(f) >= 11 {
		c.Engine, c.EngineData = f[9], f[10]
	}
	if protocol == 0 { // the mark stands where the address would (kernel: ip_vs_core.c, ip_vs_sched_persist)
		a := c.Virtual.Addr().AsSlice()
		c.Mark = binary.BigEndian.Uint32(a)
		c.Virtual = MarkID(c.Mark, familyOf(c.Virtual.Addr())).Address
	}
	// FTP's data connections have no client's port at first either, but a state.
	c.Template = c.Client.Port() == 0 && (c.State == "NONE" || c.State == "ASSURED")
	return c, nil
}

// parseProtocol reads a name of the kernel's (kernel: ip_vs_core.c,
// ip_vs_proto_name).
func parseProtocol(s string) (Protocol, error) {
	switch s {
	case "IP":
		return 0, nil
	case "TCP":
		return TCP, nil
	case "UDP":
		return UDP, nil
	case "SCTP":
		return SCTP, nil
	case "ICMP":
		return syscall.IPPROTO_ICMP, nil
	case "ICMPv6":
		return syscall.IPPROTO_ICMPV6, nil
	}
	if number, found := strings.CutPrefix(s, "IP_"); found {
		n, err := strconv.ParseUint(number, 10, 8)
		if err == nil {
			return Protocol(n), nil
		}
	}
	return 0, errors.New("unknown protocol")
}

func parseHex(address, port string) (netip.AddrPort, error) {
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port: %w", err)
	}
	if strings.Contains(address, ":") {
		a, err := netip.ParseAddr(address)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if !a.Is6() || a.Zone() != "" {
			return netip.AddrPort{}, fmt.Errorf("%q is no address", address)
		}
		return netip.AddrPortFrom(a, uint16(number)), nil
	}
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", address, err)
	}
	if len(b) != 4 {
		return netip.AddrPort{}, fmt.Errorf("address of %d octets", len(b))
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), uint16(number)), nil
}
