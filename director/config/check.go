package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/realserver"
)

// checkKinds are the keys of a check that say what is asked.
var checkKinds = []string{"tcp", "http", "https", "dns", "udp", "icmp", "grpc", "smtp", "script", "file"}

// checks reads one check, or a list of them.
func (d *decoder) checks(n *yaml.Node, path string) []realserver.Check {
	if n.Kind != yaml.SequenceNode {
		return []realserver.Check{d.check(n, path)}
	}
	var all []realserver.Check
	d.sequence(n, path, func(n *yaml.Node, path string, _ int) { all = append(all, d.check(n, path)) })
	return all
}

// check reads a check: the terms of its kind under the kind's name, and when it is asked.
func (d *decoder) check(n *yaml.Node, path string) realserver.Check {
	var c realserver.Check
	of := func(kind realserver.CheckKind, read func(n *yaml.Node, path string)) func(*yaml.Node, string) {
		return func(n *yaml.Node, path string) {
			c.Kind = kind
			read(n, path)
		}
	}
	http := func(n *yaml.Node, path string) { c.HTTP = d.httpCheck(n, path) }
	exchange := func(n *yaml.Node, path string) { c.Exchange = d.exchange(n, path) }
	var tls *realserver.TLSCheck
	d.mapping(n, path, fields{
		{"tcp", of(realserver.CheckTCP, exchange)},
		{"http", of(realserver.CheckHTTP, http)},
		{"https", of(realserver.CheckHTTP, func(n *yaml.Node, path string) {
			http(n, path)
			c.TLS = &realserver.TLSCheck{}
		})},
		{"dns", of(realserver.CheckDNS, func(n *yaml.Node, path string) {
			c.DNS = &realserver.DNSCheck{}
			d.mapping(n, path, fields{
				{"name", word(d, &c.DNS.Name, nonEmpty)},
				{"type", word(d, &c.DNS.Type, oneOf("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"))},
				{"answer", word(d, &c.DNS.Answer, nonEmpty)},
				{"tcp", word(d, &c.DNS.TCP, parseBool)},
			})
			d.require(n, path, "name", "the name that is asked for")
		})},
		{"udp", of(realserver.CheckUDP, exchange)},
		{"icmp", of(realserver.CheckICMP, func(n *yaml.Node, path string) { d.mapping(n, path, fields{}) })},
		{"grpc", of(realserver.CheckGRPC, func(n *yaml.Node, path string) {
			c.GRPC = &realserver.GRPCCheck{}
			d.mapping(n, path, fields{{"service", word(d, &c.GRPC.Service, nonEmpty)}})
		})},
		{"smtp", of(realserver.CheckSMTP, func(n *yaml.Node, path string) {
			c.SMTP = &realserver.SMTPCheck{}
			d.mapping(n, path, fields{
				{"hello", word(d, &c.SMTP.Hello, nonEmpty)},
				{"starttls", word(d, &c.SMTP.STARTTLS, parseBool)},
			})
		})},
		{"script", of(realserver.CheckScript, func(n *yaml.Node, path string) {
			c.Script = &realserver.ScriptCheck{}
			status := realserver.StatusMeaning("plain")
			d.mapping(n, path, fields{
				{"command", func(n *yaml.Node, path string) { c.Script.Command = d.command(n, path) }},
				{"user", word(d, &c.Script.User, parseUser)},
				{"status", word(d, &status, oneOf("plain", realserver.StatusNagios, realserver.StatusWeight))},
			})
			if status != "plain" {
				c.Script.Status = status
			}
			d.require(n, path, "command", "a list of the program, an absolute path, and its arguments")
		})},
		{"file", of(realserver.CheckFile, func(n *yaml.Node, path string) {
			c.File = &realserver.FileCheck{}
			d.mapping(n, path, fields{{"path", word(d, &c.File.Path, parsePath)}})
			d.require(n, path, "path", "the absolute path of a file whose first line is a number")
		})},
		{"tls", func(n *yaml.Node, path string) { tls = d.tlsCheck(n, path) }},
		{"port", word(d, &c.Port, numberBetween[uint16]("a port", 1, 65535))},
		{"via", word(d, &c.Via, oneOf(realserver.ViaServer, realserver.ViaVirtual))},
		{"interval", word(d, &c.Interval, parsePositive)},
		{"timeout", word(d, &c.Timeout, parsePositive)},
		{"retry", word(d, &c.Retry, parsePositive)},
		{"rise", word(d, &c.Rise, numberBetween[uint16]("a count", 1, 65535))},
		{"fall", word(d, &c.Fall, numberBetween[uint16]("a count", 1, 65535))},
	})
	if tls != nil {
		c.TLS = tls
	}
	if !d.broken[path] {
		d.oneKind(n, path)
	}
	return c
}

// oneKind refuses a check that asks nothing, or two things.
func (d *decoder) oneKind(n *yaml.Node, path string) {
	var given []string
	for _, kind := range checkKinds {
		if d.places[path+"."+kind] != nil {
			given = append(given, kind)
		}
	}
	switch len(given) {
	case 0:
		d.refuse(n, path, "nothing is asked: want %s, such as tcp: {}", orList(checkKinds))
	case 1:
	default:
		d.refuse(d.places[path+"."+given[1]], path, "it asks %s: want one; a list has several checks", strings.Join(given, " and "))
	}
}

// require refuses a mapping without a key.
func (d *decoder) require(n *yaml.Node, path, key, what string) {
	if !d.broken[path] && d.places[path+"."+key] == nil {
		d.refuse(n, path+"."+key, "the key is missing: %s", what)
	}
}

func (d *decoder) httpCheck(n *yaml.Node, path string) *realserver.HTTPCheck {
	h, version := &realserver.HTTPCheck{}, uint8(0)
	d.mapping(n, path, fields{
		{"version", word(d, &version, numberBetween[uint8]("a version", 1, 2))},
		{"method", word(d, &h.Method, nonEmpty)},
		{"path", word(d, &h.Path, nonEmpty)},
		{"host", word(d, &h.Host, nonEmpty)},
		{"headers", func(n *yaml.Node, path string) { h.Headers = listOf(d, n, path, realserver.ParseHeader) }},
		{"status", func(n *yaml.Node, path string) { h.Status = listOf(d, n, path, realserver.ParseStatusRange) }},
		{"match", word(d, &h.Match, nonEmpty)},
		{"digest", word(d, &h.Digest, nonEmpty)},
	})
	h.Version = int(version)
	return h
}

// listOf reads a list of words.
func listOf[T any](d *decoder, n *yaml.Node, path string, parse func(string) (T, error)) []T {
	var all []T
	d.sequence(n, path, func(n *yaml.Node, path string, _ int) {
		var value T
		word(d, &value, parse)(n, path)
		all = append(all, value)
	})
	return all
}

// command reads a program and its arguments, of which any may be empty.
func (d *decoder) command(n *yaml.Node, path string) []string {
	command := listOf(d, n, path, func(s string) (string, error) {
		if strings.IndexByte(s, 0) >= 0 {
			return "", errors.New("the argument has a NUL byte")
		}
		return s, nil
	})
	if len(command) == 0 && !d.broken[path] {
		d.refuse(n, path, "the command is empty: want the program, an absolute path, and its arguments")
	}
	return command
}

func (d *decoder) exchange(n *yaml.Node, path string) *realserver.ExchangeCheck {
	var e realserver.ExchangeCheck
	d.mapping(n, path, fields{
		{"send", word(d, &e.Send, func(s string) ([]byte, error) {
			s, err := nonEmpty(s)
			return []byte(s), err
		})},
		{"send-hex", word(d, &e.Send, func(s string) ([]byte, error) {
			data, err := hex.DecodeString(s)
			if err != nil || len(data) == 0 {
				return nil, errors.New("it is not a text of octets: want two hexadecimal digits each") // which may have a secret
			}
			return data, nil
		})},
		{"expect", word(d, &e.Expect, nonEmpty)},
	})
	if d.places[path+".send"] != nil && d.places[path+".send-hex"] != nil {
		d.refuse(d.places[path+".send-hex"], path+".send-hex", "send is given already: want one of them")
	}
	if len(e.Send) == 0 && e.Expect == "" {
		return nil
	}
	return &e
}

func (d *decoder) tlsCheck(n *yaml.Node, path string) *realserver.TLSCheck {
	t := &realserver.TLSCheck{}
	d.mapping(n, path, fields{
		{"server-name", word(d, &t.ServerName, nonEmpty)},
		{"ca", word(d, &t.CA, parsePath)},
		{"certificate", word(d, &t.Certificate, parsePath)},
		{"key", word(d, &t.Key, parsePath)},
		{"skip-verify", word(d, &t.SkipVerify, parseBool)},
		{"expiry-warning", word(d, &t.ExpiryWarning, parsePositive)},
		{"refuse-expired", word(d, &t.RefuseWhenExpired, parseBool)},
	})
	return t
}

// parsePositive reads a duration that is not 0, which would be taken for not given.
func parsePositive(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is out of range: want more than 0s", s)
	}
	return d, err
}

// parseUser reads the name or the number of a user; whether there is one is for the
// host to say.
func parseUser(s string) (string, error) {
	if _, err := parseGroup(s); err != nil { // the same characters
		return "", fmt.Errorf("%q is not the name of a user", s)
	}
	return s, nil
}

// writeChecks returns the check, or the list; nil for none.
func writeChecks(checks []realserver.Check) *value {
	if len(checks) == 1 {
		return writeCheck(checks[0])
	}
	all := block(yaml.SequenceNode)
	for _, check := range checks {
		all.add(writeCheck(check))
	}
	if len(checks) == 0 {
		return nil
	}
	return all
}

func writeCheck(c realserver.Check) *value {
	v, of := flow(yaml.MappingNode), flow(yaml.MappingNode)
	kind := string(c.Kind)
	switch {
	case c.HTTP != nil:
		if c.TLS != nil {
			kind = "https"
		}
		writeHTTP(of, c.HTTP)
	case c.DNS != nil:
		worded(of, "name", c.DNS.Name)
		worded(of, "type", c.DNS.Type)
		worded(of, "answer", c.DNS.Answer)
		yes(of, "tcp", c.DNS.TCP)
	case c.Exchange != nil:
		writeExchange(of, *c.Exchange)
	case c.GRPC != nil:
		worded(of, "service", c.GRPC.Service)
	case c.SMTP != nil:
		worded(of, "hello", c.SMTP.Hello)
		yes(of, "starttls", c.SMTP.STARTTLS)
	case c.Script != nil:
		of.put("command", list(c.Script.Command))
		worded(of, "user", c.Script.User)
		worded(of, "status", string(c.Script.Status))
	case c.File != nil:
		worded(of, "path", c.File.Path)
	}
	v.put(kind, of)
	if t := c.TLS; t != nil && (kind != "https" || *t != (realserver.TLSCheck{})) {
		tls := flow(yaml.MappingNode)
		worded(tls, "server-name", t.ServerName)
		worded(tls, "ca", t.CA)
		worded(tls, "certificate", t.Certificate)
		worded(tls, "key", t.Key)
		yes(tls, "skip-verify", t.SkipVerify)
		lasting(tls, "expiry-warning", t.ExpiryWarning)
		yes(tls, "refuse-expired", t.RefuseWhenExpired)
		v.put("tls", tls)
	}
	counted(v, "port", uint32(c.Port))
	worded(v, "via", string(c.Via))
	lasting(v, "interval", c.Interval)
	lasting(v, "timeout", c.Timeout)
	lasting(v, "retry", c.Retry)
	counted(v, "rise", uint32(c.Rise))
	counted(v, "fall", uint32(c.Fall))
	return v
}

func writeHTTP(v *value, h *realserver.HTTPCheck) {
	counted(v, "version", uint32(h.Version))
	worded(v, "method", h.Method)
	worded(v, "path", h.Path)
	worded(v, "host", h.Host)
	if len(h.Headers) > 0 {
		v.put("headers", list(h.Headers))
	}
	if len(h.Status) > 0 {
		v.put("status", list(h.Status))
	}
	worded(v, "match", h.Match)
	worded(v, "digest", h.Digest)
}

// writeExchange writes what is sent as a text where it is one.
func writeExchange(v *value, e realserver.ExchangeCheck) {
	text := string(e.Send)
	odd := func(r rune) bool { return !unicode.IsPrint(r) && !slices.Contains([]rune("\r\n\t"), r) }
	if utf8.ValidString(text) && !strings.ContainsFunc(text, odd) {
		worded(v, "send", text)
	} else {
		worded(v, "send-hex", hex.EncodeToString(e.Send))
	}
	worded(v, "expect", e.Expect)
}

// worded puts a text that is not empty, lasting a time that is not 0, yes what is true.
func worded(v *value, key, text string) {
	if text != "" {
		v.put(key, scalar(text))
	}
}

func lasting(v *value, key string, t time.Duration) {
	if t != 0 {
		v.put(key, scalar(formatDuration(t)))
	}
}

func yes(v *value, key string, set bool) {
	if set {
		v.put(key, &value{kind: yaml.ScalarNode, scalar: "true", bare: true})
	}
}
