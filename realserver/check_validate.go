package realserver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of checks.
const (
	MinCheckInterval = 100 * time.Millisecond
	MaxCheckInterval = 24 * time.Hour
	// maxCheckText bounds regular expressions, names and header fields, bytes; maxSend is
	// what one UDP datagram over IPv4 holds.
	maxCheckText = 4096
	maxSend      = 65507
)

// CheckKinds returns the kinds of checks.
func CheckKinds() []CheckKind {
	return []CheckKind{CheckTCP, CheckHTTP, CheckDNS, CheckUDP, CheckICMP, CheckGRPC, CheckSMTP, CheckScript, CheckFile}
}

// DNSTypes returns the record types that a DNS check can ask for.
func DNSTypes() []string {
	return []string{"A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"}
}

// Validate returns nil, or the joined *Problems of the check. A field is named by its
// path, as http.match is. Files are not looked at.
func (c Check) Validate() error {
	v := checkValidation{kind: c.Kind}
	if !slices.Contains(CheckKinds(), c.Kind) {
		v.report("kind", "unknown check %q: want one of %s", c.Kind, joinKinds(CheckKinds()))
		return errors.Join(v.problems...)
	}
	v.pace(c)
	v.way(c)
	v.section("tls", c.TLS != nil, CheckHTTP, CheckTCP, CheckSMTP, CheckGRPC)
	v.section("http", c.HTTP != nil, CheckHTTP)
	v.section("dns", c.DNS != nil, CheckDNS)
	v.section("exchange", c.Exchange != nil, CheckTCP, CheckUDP)
	v.section("grpc", c.GRPC != nil, CheckGRPC)
	v.section("smtp", c.SMTP != nil, CheckSMTP)
	v.section("script", c.Script != nil, CheckScript)
	v.section("file", c.File != nil, CheckFile)
	if c.TLS != nil {
		v.tls(*c.TLS)
	}
	if c.HTTP != nil {
		v.http(*c.HTTP)
	}
	if c.Exchange != nil {
		v.exchange(*c.Exchange)
	}
	if c.GRPC != nil {
		v.text("grpc.service", c.GRPC.Service)
	}
	if c.SMTP != nil {
		v.word("smtp.hello", c.SMTP.Hello)
	}
	switch {
	case c.DNS != nil:
		v.dns(*c.DNS)
	case c.Kind == CheckDNS:
		v.report("dns.name", "the name to ask for is missing")
	}
	switch {
	case c.Script != nil:
		v.script(*c.Script)
	case c.Kind == CheckScript:
		v.report("script.command", "the command is missing")
	}
	switch {
	case c.File != nil:
		v.file("file.path", c.File.Path)
	case c.Kind == CheckFile:
		v.report("file.path", "the path is missing")
	}
	v.redacted(c)
	return errors.Join(v.problems...)
}

// checkValidation collects the problems of one check.
type checkValidation struct {
	kind     CheckKind
	problems []error
}

func (v *checkValidation) report(field, format string, args ...any) {
	v.problems = append(v.problems, &Problem{Field: field, Text: fmt.Sprintf(format, args...)})
}

func (v *checkValidation) pace(c Check) {
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"interval", c.Interval}, {"timeout", c.Timeout}, {"retry", c.Retry}} {
		switch {
		case d.value == 0:
		case d.value < 0:
			v.report(d.field, "%s %s is negative", d.field, d.value)
		case d.field != "timeout" && d.value < MinCheckInterval:
			v.report(d.field, "%s %s is too short: want %s at least", d.field, d.value, MinCheckInterval)
		case d.value < time.Millisecond:
			v.report(d.field, "%s %s is too short: want 1ms at least", d.field, d.value)
		case d.value > MaxCheckInterval:
			v.report(d.field, "%s %s is too long: want %s at most", d.field, d.value, MaxCheckInterval)
		}
	}
	full := c.WithDefaults()
	if len(v.problems) == 0 && full.Timeout > full.Interval {
		// A server that hangs is to be out within Interval × Fall.
		v.report("timeout", "timeout %s is longer than the interval %s", full.Timeout, full.Interval)
	}
	if len(v.problems) == 0 && c.Retry > full.Interval {
		v.report("retry", "retry %s is longer than the interval %s", c.Retry, full.Interval)
	}
}

func (v *checkValidation) way(c Check) {
	if !slices.Contains([]CheckVia{ViaAuto, ViaServer, ViaVirtual}, c.Via) {
		v.report("via", "unknown way %q: want server or virtual", c.Via)
	}
	onDirector := c.Kind == CheckScript || c.Kind == CheckFile
	if c.Via == ViaVirtual && (onDirector || c.Kind == CheckICMP) {
		v.report("via", "a check of kind %s cannot go by the virtual address", c.Kind)
	}
	if c.Port != 0 && (c.Kind == CheckICMP || c.Kind == CheckFile) {
		v.report("port", "a check of kind %s has no port", c.Kind)
	}
}

// section reports terms that the kind does not have.
func (v *checkValidation) section(field string, given bool, kinds ...CheckKind) {
	if given && !slices.Contains(kinds, v.kind) {
		v.report(field, "a check of kind %s has no %s: only %s", v.kind, field, joinKinds(kinds))
	}
}

func (v *checkValidation) tls(t TLSCheck) {
	v.word("tls.server_name", t.ServerName)
	for _, f := range []struct{ field, path string }{{"tls.ca", t.CA}, {"tls.certificate", t.Certificate}, {"tls.key", t.Key}} {
		if f.path != "" {
			v.file(f.field, f.path)
		}
	}
	if t.Certificate != "" && t.Key == "" {
		v.report("tls.key", "the key of tls.certificate is missing")
	}
	if t.Key != "" && t.Certificate == "" {
		v.report("tls.certificate", "the certificate of tls.key is missing")
	}
	if t.SkipVerify && t.CA != "" {
		v.report("tls.ca", "no certificate is verified with tls.skip_verify: choose one")
	}
	if t.ExpiryWarning < 0 {
		v.report("tls.expiry_warning", "expiry_warning %s is negative", t.ExpiryWarning)
	}
}

func (v *checkValidation) exchange(e ExchangeCheck) {
	if len(e.Send) > maxSend {
		v.report("exchange.send", "%d bytes to send: want %d at most", len(e.Send), maxSend)
	}
	v.expression("exchange.expect", e.Expect)
}

func (v *checkValidation) script(s ScriptCheck) {
	if len(s.Command) == 0 {
		v.report("script.command", "the command is missing")
	} else {
		v.file("script.command", s.Command[0])
	}
	for i, arg := range s.Command {
		if i > 0 && strings.ContainsRune(arg, 0) {
			v.report(fmt.Sprintf("script.command[%d]", i), "the argument has a zero byte")
		}
	}
	v.word("script.user", s.User)
	if !slices.Contains([]StatusMeaning{StatusPlain, StatusNagios, StatusWeight}, s.Status) {
		v.report("script.status", "unknown meaning %q: want nagios or weight", s.Status)
	}
}

// file reports what is no absolute path.
func (v *checkValidation) file(field, name string) {
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) || len(name) > maxCheckText {
		v.report(field, "%q is not an absolute path", name)
	}
}

// expression reports what is no regular expression.
func (v *checkValidation) expression(field, text string) {
	if len(text) > maxCheckText {
		v.report(field, "a regular expression of %d bytes: want %d at most", len(text), maxCheckText)
	} else if _, err := regexp.Compile(text); err != nil {
		v.report(field, "%v", err)
	}
}

// text reports control characters and excess; empty is fine.
func (v *checkValidation) text(field, text string) { v.textNamed(field, text, strconv.Quote(text)) }

// secretText does that of what is not to be in a message.
func (v *checkValidation) secretText(field, text string) { v.textNamed(field, text, "the value") }

func (v *checkValidation) textNamed(field, text, name string) {
	if len(text) > maxCheckText {
		v.report(field, "%d bytes: want %d at most", len(text), maxCheckText)
	} else if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		v.report(field, "%s has a control character", name)
	}
}

// word reports what text does, and spaces.
func (v *checkValidation) word(field, text string) {
	if strings.ContainsAny(text, " \t") {
		v.report(field, "%q has a space", text)
		return
	}
	v.text(field, text)
}

func joinKinds(kinds []CheckKind) string {
	texts := make([]string, len(kinds))
	for i, k := range kinds {
		texts[i] = string(k)
	}
	return strings.Join(texts, ", ")
}

// tokenBytes are those of a token (RFC 9110 §5.6.2).
var tokenBytes = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// ownHeaders are the header fields that the probe writes itself: their values follow
// from the connection and the request.
var ownHeaders = []string{"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

func (v *checkValidation) http(h HTTPCheck) {
	if h.Version < 0 || h.Version > 2 {
		v.report("http.version", "unknown version %d: want 1 or 2", h.Version)
	}
	if h.Method != "" && !tokenBytes.MatchString(h.Method) || h.Method == "CONNECT" {
		v.report("http.method", "%q is no method for a check", h.Method)
	}
	bare, _, _ := strings.Cut(h.Path, "?") // a query may have a secret
	if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
		v.report("http.path", "%q does not begin with /", bare)
	} else if strings.ContainsAny(h.Path, " \t#") {
		v.report("http.path", "%q, or its query, has a space or a fragment: write %%20, or leave the fragment out", bare)
	} else {
		v.secretText("http.path", h.Path)
	}
	v.host(h.Host)
	for i, header := range h.Headers {
		field := fmt.Sprintf("http.headers[%d]", i)
		switch {
		case !tokenBytes.MatchString(header.Name):
			v.report(field, "%q is not a header's name", header.Name)
		case slices.Contains(ownHeaders, strings.ToLower(header.Name)):
			v.report(field, "header %s is the probe's own", header.Name)
		default:
			v.secretText(field, header.Value)
		}
	}
	for i, status := range h.Status {
		if status.First < 100 || status.Last > 999 || status.First > status.Last {
			v.report(fmt.Sprintf("http.status[%d]", i), "%d to %d is no range of status codes", status.First, status.Last)
		}
	}
	v.expression("http.match", h.Match)
	if digest, err := hex.DecodeString(h.Digest); err != nil || !slices.Contains([]int{0, 16, 32}, len(digest)) {
		v.report("http.digest", "%q is no SHA-256 (64 hexadecimal digits) and no MD5 (32)", h.Digest)
	}
}

func (v *checkValidation) host(host string) {
	if strings.ContainsAny(host, "/?#@\\") {
		v.report("http.host", "%q is not a host", host)
		return
	}
	if strings.Count(host, ":") > 1 && !strings.HasPrefix(host, "[") {
		v.report("http.host", "%q: write an IPv6 address in brackets", host)
		return
	}
	v.word("http.host", host)
}

func (v *checkValidation) dns(d DNSCheck) {
	if text := dnsNameProblem(d.Name); text != "" {
		v.report("dns.name", "%s", text)
	}
	kind := strings.ToUpper(d.Type)
	if kind != "" && !slices.Contains(DNSTypes(), kind) {
		v.report("dns.type", "unknown type %q: want one of %s", d.Type, strings.Join(DNSTypes(), ", "))
	}
	v.text("dns.answer", d.Answer)
	if d.Answer == "" {
		return
	}
	addr, err := netip.ParseAddr(d.Answer)
	switch {
	case (kind == "" || kind == "A") && (err != nil || !addr.Is4()):
		v.report("dns.answer", "%q is not an IPv4 address", d.Answer)
	case kind == "AAAA" && (err != nil || !addr.Is6() || addr.Zone() != ""):
		v.report("dns.answer", "%q is not an IPv6 address", d.Answer)
	}
}

// dnsNameProblem says why a name cannot be asked for (RFC 1035 §2.3.4); empty if it can.
func dnsNameProblem(name string) string {
	if name == "" {
		return "the name to ask for is missing"
	}
	if name == "." {
		return ""
	}
	bare := strings.TrimSuffix(name, ".")
	if len(bare) > 253 {
		return fmt.Sprintf("a name of %d bytes: want 253 at most", len(bare))
	}
	for label := range strings.SplitSeq(bare, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Sprintf("%q has a label of %d bytes: want 1 to 63", name, len(label))
		}
		if strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Sprintf("%q has a character that is no letter, digit or sign of ASCII", name)
		}
	}
	return ""
}
