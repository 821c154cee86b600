package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

// flagTunnel says how packets are wrapped for a server of method tunnel, and that
// this is the method unless another one is given.
const flagTunnel = "tunnel"

// readTunnel reads --tunnel, TYPE[:PORT][:CHECKSUM]; nil where it was not given.
// Which of them go together is the daemon's to say.
func readTunnel(c *cli.Context) (*api.Tunnel, error) {
	if !c.IsSet(flagTunnel) {
		return nil, nil
	}
	text := c.String(flagTunnel)
	if method := c.String("method"); method != "" && !strings.EqualFold(method, realserver.Tunnel.String()) {
		return nil, usage(c, "--%s is for --method tunnel, not %s", flagTunnel, method)
	}
	parts := strings.Split(text, ":")
	kind, err := realserver.ParseTunnelType(parts[0])
	if err != nil {
		return nil, usage(c, "--%s: %v", flagTunnel, err)
	}
	tunnel := &api.Tunnel{Type: kind.String()}
	for i, part := range parts[1:] {
		if port, err := strconv.ParseUint(part, 10, 16); err == nil && i == 0 && port > 0 {
			tunnel.Port = uint16(port)
			continue
		}
		checksum, err := realserver.ParseTunnelChecksum(part)
		if err != nil || tunnel.Checksum != "" {
			return nil, usage(c, "--%s %q: want TYPE[:PORT][:CHECKSUM], such as ipip, gre:full or gue:5555:remote", flagTunnel, text)
		}
		tunnel.Checksum = checksum.String()
	}
	return tunnel, nil
}

// tunnelText is how packets are wrapped for the server, as --tunnel reads it; empty
// for other methods.
func tunnelText(s api.Server) string {
	if s.Method != realserver.Tunnel.String() {
		return ""
	}
	if s.Tunnel == nil || s.Tunnel.Type == "" {
		return realserver.TunnelIPIP.String()
	}
	text := s.Tunnel.Type
	if s.Tunnel.Port != 0 {
		text += ":" + strconv.Itoa(int(s.Tunnel.Port))
	}
	if s.Tunnel.Checksum != "" {
		text += ":" + s.Tunnel.Checksum
	}
	return text
}
