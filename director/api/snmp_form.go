package api

import (
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// terms turns the model into the domain's value.
func (s SNMP) terms() (*realserver.SNMP, error) {
	measure, err := chosen[realserver.SNMPMeasure]("load: snmp: measure", s.Measure, "cpu", "load-1", "load-5", "load-15")
	return &realserver.SNMP{
		Version: realserver.SNMPVersion(s.Version), CommunityFile: s.CommunityFile, User: s.User,
		Auth: realserver.SNMPAuth(s.Auth), AuthFile: s.AuthFile, Priv: realserver.SNMPPriv(s.Priv), PrivFile: s.PrivFile,
		Port: s.Port, Interval: time.Duration(s.Interval), Timeout: time.Duration(s.Timeout),
		Measure: measure, Processors: s.Processors, OID: s.OID, Scale: s.Scale,
	}, err
}

// snmpModel is the reverse; nil for none.
func snmpModel(s *realserver.SNMP) *SNMP {
	if s == nil {
		return nil
	}
	return &SNMP{
		Version: string(s.Version), CommunityFile: s.CommunityFile, User: s.User,
		Auth: string(s.Auth), AuthFile: s.AuthFile, Priv: string(s.Priv), PrivFile: s.PrivFile,
		Port: s.Port, Interval: Duration(s.Interval), Timeout: Duration(s.Timeout),
		Measure: string(s.Measure), Processors: s.Processors, OID: s.OID, Scale: s.Scale,
	}
}
