package directortest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Counters reads the protocol counters of the namespace, named as nstat names
// them: TcpInCsumErrors, UdpInDatagrams, Ip6InReceives, TcpExtTCPTimeouts.
func (n *Namespace) Counters() (map[string]uint64, error) {
	counters := map[string]uint64{}
	err := n.Do(func() error {
		for _, name := range []string{"snmp", "netstat"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			if err := parsePairs(counters, string(text)); err != nil {
				return fmt.Errorf("/proc/net/%s: %w", name, err)
			}
		}
		text, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		fields := strings.Fields(string(text))
		for i := 0; i+1 < len(fields); i += 2 {
			if counters[fields[i]], err = parseCounter(fields[i+1]); err != nil {
				return fmt.Errorf("/proc/net/snmp6: %s: %w", fields[i], err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read counters of %s: %w", n.Name, err)
	}
	return counters, nil
}

// parsePairs reads pairs of lines: "Tcp: InSegs OutSegs", "Tcp: 5 7".
func parsePairs(counters map[string]uint64, text string) error {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if len(names) != len(values) || len(names) == 0 || names[0] != values[0] {
			return fmt.Errorf("lines %d and %d are no pair", i+1, i+2)
		}
		prefix := strings.TrimSuffix(names[0], ":")
		for j := 1; j < len(names); j++ {
			value, err := parseCounter(values[j])
			if err != nil {
				return fmt.Errorf("%s%s: %w", prefix, names[j], err)
			}
			counters[prefix+names[j]] = value
		}
	}
	return nil
}

// parseCounter reads a counter; a few (TcpMaxConn) are -1, kept as 2^64-1.
func parseCounter(text string) (uint64, error) {
	if strings.HasPrefix(text, "-") {
		value, err := strconv.ParseInt(text, 10, 64)
		return uint64(value), err
	}
	return strconv.ParseUint(text, 10, 64)
}

// ChecksumErrors returns the number of TCP and UDP packets of both families
// that the namespace received with a wrong checksum.
func (n *Namespace) ChecksumErrors() (uint64, error) {
	counters, err := n.Counters()
	if err != nil {
		return 0, err
	}
	// TcpInCsumErrors counts IPv6 too.
	return counters["TcpInCsumErrors"] + counters["UdpInCsumErrors"] + counters["Udp6InCsumErrors"], nil
}
