package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

// The status has what the file says, and nothing of it where no packet is the
// daemon's to answer.
func TestForwarding(t *testing.T) {
	const text = `director:
  echo: always
  tunnel: {sources: [10.0.0.32/28, "2001:db8::2"]}
  fullnat: {addresses: [10.0.0.2], ports: 32768-60999}
`
	for _, tt := range []struct {
		text string
		want *api.Forwarding
	}{
		{text, &api.Forwarding{
			Echo: "always", TunnelSources: []string{"10.0.0.32/28", "2001:db8::2/128"}, LocalAddresses: []string{"10.0.0.2/32"}, LocalPorts: "32768-60999",
		}},
		{"", &api.Forwarding{Echo: "service", TunnelSources: []string{}, LocalAddresses: []string{}, LocalPorts: "1024-65535"}},
		{text + "  dataplane: ipvs\n", nil},
	} {
		cfg, err := config.Parse("f", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, forwarding(cfg.Director)); diff != "" {
			t.Errorf("%s(-want +got):\n%s", tt.text, diff)
		}
	}
}
