package realserver

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"
)

// SNMP says how hosts without an agent are asked for their load. Values are comparable,
// and hold no secret: those are in files on the director.
type SNMP struct {
	Version SNMPVersion
	// CommunityFile has the community of version 2c; "": that is "public".
	CommunityFile string
	// User, Auth and Priv are of version 3 (RFC 3414), their passphrases in files.
	User     string
	Auth     SNMPAuth
	AuthFile string
	Priv     SNMPPriv
	PrivFile string

	Port uint16 // 0: 161
	// Interval is from one question to the next, Timeout how long an answer may take, with
	// everything that is asked again. 0: 10 s, and 2 s or the interval if that is less.
	Interval, Timeout time.Duration

	// Measure is what is asked for, "" with an OID.
	Measure SNMPMeasure
	// Processors divides the run queue; 0: as many as the host says it has.
	Processors uint16
	// OID is an object whose value is the load: Scale, or 100 if that is 0, means 1.
	OID   string
	Scale uint32
}

// SNMPVersion is a version of the protocol.
type SNMPVersion string

// The versions.
const (
	SNMPv2c SNMPVersion = "v2c" // RFC 1901
	SNMPv3  SNMPVersion = "v3"  // RFC 3414, the user-based security model
)

// SNMPAuth is a protocol by which messages are authenticated.
type SNMPAuth string

// The protocols (RFC 3414 §6, §7; RFC 7860).
const (
	SNMPAuthNone   SNMPAuth = ""
	SNMPAuthMD5    SNMPAuth = "md5"
	SNMPAuthSHA    SNMPAuth = "sha"
	SNMPAuthSHA224 SNMPAuth = "sha-224"
	SNMPAuthSHA256 SNMPAuth = "sha-256"
	SNMPAuthSHA384 SNMPAuth = "sha-384"
	SNMPAuthSHA512 SNMPAuth = "sha-512"
)

// SNMPAuths returns the protocols that authenticate.
func SNMPAuths() []SNMPAuth {
	return []SNMPAuth{SNMPAuthMD5, SNMPAuthSHA, SNMPAuthSHA224, SNMPAuthSHA256, SNMPAuthSHA384, SNMPAuthSHA512}
}

// SNMPPriv is a protocol by which messages are encrypted.
type SNMPPriv string

// The protocols (RFC 3414 §8, RFC 3826). Longer keys than 128 bits are in no RFC: the
// plain words make them as Net-SNMP does, those with -c as Cisco's devices do.
const (
	SNMPPrivNone    SNMPPriv = ""
	SNMPPrivDES     SNMPPriv = "des"
	SNMPPrivAES     SNMPPriv = "aes"
	SNMPPrivAES192  SNMPPriv = "aes-192"
	SNMPPrivAES256  SNMPPriv = "aes-256"
	SNMPPrivAES192C SNMPPriv = "aes-192-c"
	SNMPPrivAES256C SNMPPriv = "aes-256-c"
)

// SNMPPrivs returns the protocols that encrypt.
func SNMPPrivs() []SNMPPriv {
	return []SNMPPriv{SNMPPrivDES, SNMPPrivAES, SNMPPrivAES192, SNMPPrivAES256, SNMPPrivAES192C, SNMPPrivAES256C}
}

// SNMPMeasure is what a host's load is made of.
type SNMPMeasure string

// The measures, all of UCD-SNMP-MIB: the load is the greater of this and the share of
// memory that is not available.
const (
	// SNMPMeasureCPU is the share of time that the processors worked since the last
	// question, which is what shunt-agent reports.
	SNMPMeasureCPU SNMPMeasure = ""
	// The others are the run queue by processor, of the last 1, 5 and 15 minutes.
	SNMPMeasureLoad1  SNMPMeasure = "load-1"
	SNMPMeasureLoad5  SNMPMeasure = "load-5"
	SNMPMeasureLoad15 SNMPMeasure = "load-15"
)

// SNMPMeasures returns the measures that have words of their own.
func SNMPMeasures() []SNMPMeasure {
	return []SNMPMeasure{SNMPMeasureLoad1, SNMPMeasureLoad5, SNMPMeasureLoad15}
}

// Bounds of the questions' pace, and its defaults.
const (
	MinSNMPInterval     = time.Second
	MaxSNMPInterval     = 10 * time.Minute
	minSNMPTimeout      = 100 * time.Millisecond
	defaultSNMPPort     = 161
	defaultSNMPInterval = 10 * time.Second
	defaultSNMPTimeout  = 2 * time.Second
	defaultSNMPScale    = 100
	maxSNMPUser         = 32  // octets (RFC 3414 §5, usmUserName)
	maxSNMPOID          = 128 // numbers (RFC 2578 §3.5)
)

// WithDefaults returns the terms with what is left out filled in.
func (s SNMP) WithDefaults() SNMP {
	s.Port = cmp.Or(s.Port, defaultSNMPPort)
	s.Interval = cmp.Or(s.Interval, defaultSNMPInterval)
	s.Timeout = cmp.Or(s.Timeout, min(defaultSNMPTimeout, s.Interval))
	if s.OID != "" {
		s.Scale = cmp.Or(s.Scale, defaultSNMPScale)
	}
	return s
}

// Pace is how far apart answers are at most, as long as there are some.
func (s SNMP) Pace() time.Duration {
	s = s.WithDefaults()
	return s.Interval + s.Interval/10 + s.Timeout
}

// Validate returns nil, or the joined *Problems of the terms. Files are not looked at.
func (s SNMP) Validate() error {
	v := checkValidation{}
	v.snmpSecurity(s)
	v.snmpPace(s)
	v.snmpMeasure(s)
	return errors.Join(v.problems...)
}

// snmpSecurity reports what the version does not have, and what is missing.
func (v *checkValidation) snmpSecurity(s SNMP) {
	for _, f := range []struct{ field, path string }{{"community_file", s.CommunityFile}, {"auth_file", s.AuthFile}, {"priv_file", s.PrivFile}} {
		if f.path != "" {
			v.file(f.field, f.path)
		}
	}
	if !slices.Contains(append(SNMPAuths(), SNMPAuthNone), s.Auth) {
		v.report("auth", "unknown protocol %q: want one of md5, sha, sha-224, sha-256, sha-384, sha-512", s.Auth)
	}
	if !slices.Contains(append(SNMPPrivs(), SNMPPrivNone), s.Priv) {
		v.report("priv", "unknown protocol %q: want one of des, aes, aes-192, aes-256, aes-192-c, aes-256-c", s.Priv)
	}
	switch s.Version {
	case SNMPv2c:
		for _, f := range []struct{ field, value string }{
			{"user", s.User}, {"auth", string(s.Auth)}, {"auth_file", s.AuthFile}, {"priv", string(s.Priv)}, {"priv_file", s.PrivFile},
		} {
			if f.value != "" {
				v.report(f.field, "version v2c has no %s: it is of v3", strings.ReplaceAll(f.field, "_", "-"))
			}
		}
		return
	case SNMPv3:
	default:
		v.report("version", "unknown version %q: want v2c or v3", s.Version)
		return
	}
	if s.CommunityFile != "" {
		v.report("community_file", "version v3 has no community: it has a user")
	}
	if s.User == "" || len(s.User) > maxSNMPUser {
		v.report("user", "a user of %d bytes: want 1 to %d", len(s.User), maxSNMPUser)
	} else {
		v.word("user", s.User)
	}
	v.pair("auth", string(s.Auth), s.AuthFile)
	v.pair("priv", string(s.Priv), s.PrivFile)
	if s.Priv != SNMPPrivNone && s.Auth == SNMPAuthNone {
		v.report("auth", "messages that are encrypted are authenticated too (RFC 3414 §1.4.3): want auth")
	}
}

// pair reports a protocol without its passphrase, and the reverse.
func (v *checkValidation) pair(field, protocol, file string) {
	if protocol != "" && file == "" {
		v.report(field+"_file", "the file of the passphrase for %s is missing", protocol)
	} else if protocol == "" && file != "" {
		v.report(field, "the protocol that %s-file is for is missing", field)
	}
}

func (v *checkValidation) snmpPace(s SNMP) {
	if s.Interval != 0 && (s.Interval < MinSNMPInterval || s.Interval > MaxSNMPInterval) {
		v.report("interval", "interval %s is out of range: want %s to %s", s.Interval, MinSNMPInterval, MaxSNMPInterval)
		return
	}
	if full := s.WithDefaults(); full.Timeout < minSNMPTimeout || full.Timeout > full.Interval {
		v.report("timeout", "timeout %s is out of range: want %s to %s, the interval", full.Timeout, minSNMPTimeout, full.Interval)
	}
}

// oidPattern is an object identifier in numbers.
var oidPattern = regexp.MustCompile(`^\.?[0-2](\.[0-9]{1,10})+$`)

func (v *checkValidation) snmpMeasure(s SNMP) {
	if !slices.Contains(append(SNMPMeasures(), SNMPMeasureCPU), s.Measure) {
		v.report("measure", "unknown measure %q: want cpu, load-1, load-5 or load-15", s.Measure)
	}
	if s.OID == "" {
		if s.Scale != 0 {
			v.report("scale", "scale without oid: it is what the object's value is divided by")
		}
		if s.Processors != 0 && s.Measure == SNMPMeasureCPU {
			v.report("processors", "processors divide a run queue: want a measure of load-1, load-5 or load-15")
		}
		return
	}
	if !oidPattern.MatchString(s.OID) || strings.Count(s.OID, ".") >= maxSNMPOID {
		v.report("oid", "%.60q is no object identifier in numbers: want one such as 1.3.6.1.4.1.2021.10.1.5.1", s.OID)
	}
	if s.Measure != SNMPMeasureCPU {
		v.report("measure", "measure %s and oid: want one of them", s.Measure)
	}
	if s.Processors != 0 {
		v.report("processors", "processors and oid: scale is what the object's value is divided by")
	}
}
