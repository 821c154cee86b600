package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/realserver"
)

// measureCPU is the word for what the domain has as "".
const measureCPU realserver.SNMPMeasure = "cpu"

// snmp reads how hosts are asked for their load.
func (d *decoder) snmp(n *yaml.Node, path string) *realserver.SNMP {
	s := &realserver.SNMP{}
	measure := measureCPU
	d.mapping(n, path, fields{
		{"version", word(d, &s.Version, oneOf(realserver.SNMPv2c, realserver.SNMPv3))},
		{"community-file", word(d, &s.CommunityFile, parsePath)},
		{"user", word(d, &s.User, nonEmpty)},
		{"auth", word(d, &s.Auth, oneOf(realserver.SNMPAuths()...))},
		{"auth-file", word(d, &s.AuthFile, parsePath)},
		{"priv", word(d, &s.Priv, oneOf(realserver.SNMPPrivs()...))},
		{"priv-file", word(d, &s.PrivFile, parsePath)},
		{"port", word(d, &s.Port, numberBetween[uint16]("a port", 1, 65535))},
		{"interval", word(d, &s.Interval, parsePositive)},
		{"timeout", word(d, &s.Timeout, parsePositive)},
		{"measure", word(d, &measure, oneOf(append([]realserver.SNMPMeasure{measureCPU}, realserver.SNMPMeasures()...)...))},
		{"processors", word(d, &s.Processors, numberBetween[uint16]("a count", 1, 65535))},
		{"oid", word(d, &s.OID, parseOID)},
		{"scale", word(d, &s.Scale, size32(1, 1<<32-1))},
	})
	d.require(n, path, "version", "v2c or v3")
	if measure != measureCPU {
		s.Measure = measure
	}
	return s
}

// parseOID reads an object identifier; the domain says which there are.
func parseOID(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("the object identifier is empty: want one in numbers, such as 1.3.6.1.4.1.2021.10.1.5.1")
	}
	return s, nil
}

// writeSNMP writes how hosts are asked for their load.
func writeSNMP(v *value, s realserver.SNMP) {
	worded(v, "version", string(s.Version))
	worded(v, "community-file", s.CommunityFile)
	worded(v, "user", s.User)
	worded(v, "auth", string(s.Auth))
	worded(v, "auth-file", s.AuthFile)
	worded(v, "priv", string(s.Priv))
	worded(v, "priv-file", s.PrivFile)
	counted(v, "port", uint32(s.Port))
	lasting(v, "interval", s.Interval)
	lasting(v, "timeout", s.Timeout)
	worded(v, "measure", string(s.Measure))
	counted(v, "processors", uint32(s.Processors))
	worded(v, "oid", s.OID)
	counted(v, "scale", s.Scale)
}
