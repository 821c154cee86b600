package ldirectord

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// checkDirective reads a line that says what servers are asked; false if it is none.
func (v *virtual) checkDirective(d directive) bool {
	text := func(to *string) {
		inner, ok := quoted(d.value)
		if !ok || inner == "" {
			v.note(translation.Differs, d, "want a text in quotes: "+refused)
			return
		}
		*to = inner
	}
	word := func(to *string, words ...string) {
		got := oneWord.FindString(d.value)
		for _, w := range words {
			if strings.EqualFold(got, w) {
				*to = w
				return
			}
		}
		v.note(translation.Differs, d, fmt.Sprintf("want %s: %s", strings.Join(words, ", "), refused))
	}
	switch d.key {
	case "checkcommand":
		v.commandAt = d
		if v.command = d.value; strings.HasPrefix(d.value, `"`) {
			v.command, _ = quoted(d.value)
		}
	case "checkport":
		port, problem := v.portOf(digits.FindString(d.value))
		if problem != "" || port == 0 {
			v.note(translation.Differs, d, "want a port from 1 to 65535: "+refused)
		} else {
			v.checkPort = port
		}
	case "request":
		if text(&v.request); v.request != "" && !strings.HasPrefix(v.request, "/") {
			v.request = "/" + v.request
		}
	case "receive":
		text(&v.receive)
	case "httpmethod":
		word(&v.httpMethod, "GET", "HEAD")
	case "virtualhost":
		v.virtualHost = strings.Trim(d.value, `"`)
	case "service":
		v.serviceAt = d
		word(&v.service, services...)
	default:
		return false
	}
	return true
}

// quoted returns what stands between the first and the last quote.
func quoted(value string) (string, bool) {
	inner, ok := strings.CutPrefix(value, `"`)
	last := strings.LastIndexByte(inner, '"')
	if !ok || last < 0 {
		return "", false
	}
	return inner[:last], true
}

// services are what ldirectord can negotiate.
var services = []string{
	"dns", "ftp", "http", "https", "http_proxy", "imap", "imaps", "ldap", "ldaps", "nntp", "mysql", "none", "oracle", "pop", "pops", "radius",
	"pgsql", "sip", "smtp", "submission", "simpletcp",
}

// servicePorts are the ports that services are known by (ldirectord,
// ld_port_to_service).
var servicePorts = map[uint16]string{
	21: "ftp", 25: "smtp", 53: "dns", 80: "http", 110: "pop", 119: "nntp", 143: "imap", 389: "ldap", 443: "https", 587: "submission", 636: "ldaps",
	995: "pops", 993: "imaps", 1521: "oracle", 1812: "radius", 3128: "http_proxy", 3306: "mysql", 5060: "sip", 5432: "pgsql",
}

// question is what a line of servers is asked.
type question struct {
	request, receive string
	port             uint16 // the line's
	addr             netip.Addr
	several          bool // the line has several servers
}

// checksOf returns what servers of a line are asked (ldirectord, _check_real).
func (v *virtual) checksOf(key director.ServiceKey, d directive, q question) []translation.Asked {
	if v.service == "" {
		v.service = "none"
		if service, known := servicePorts[key.Address.Port()]; known && !key.IsMark() {
			v.service = service
		}
	}
	var all []translation.Asked
	add := func(check realserver.Check, negotiates bool, times time.Duration) {
		check = v.paced(check, negotiates)
		if times > 1 {
			check.Retry = check.Interval
			check.Interval = min(check.Interval*times, realserver.MaxCheckInterval)
		}
		if check.Port = v.checkPort; check.Port == 0 && check.Kind != realserver.CheckICMP && check.Kind != realserver.CheckScript {
			check.Port = v.portFor(q.port)
		}
		if check.Kind == realserver.CheckICMP || check.Kind == realserver.CheckScript {
			check.Port = 0
		}
		all = append(all, translation.Asked{Source: translation.Source{At: d.at, What: d.String()}, Check: check})
	}
	negotiate := func(times time.Duration) {
		if check, ok := v.negotiated(d, q); ok {
			add(check, true, times)
		}
	}
	switch v.checkType {
	case "on", "off":
	case "ping":
		add(realserver.Check{Kind: realserver.CheckICMP}, false, 1)
	case "connect":
		if v.protocol == conntrack.UDP {
			add(realserver.Check{Kind: realserver.CheckICMP}, false, 1)
		} else {
			add(realserver.Check{Kind: realserver.CheckTCP}, false, 1)
		}
	case "external", "external-perl":
		if check, ok := v.external(key); ok {
			add(check, false, 1)
		}
	case "combined":
		if v.protocol == conntrack.UDP {
			v.once(translation.Differs, v.d, "connecting says nothing of a UDP service: servers are asked for the rest alone")
		} else {
			add(realserver.Check{Kind: realserver.CheckTCP}, false, 1)
		}
		negotiate(time.Duration(v.connects) + 1)
	default:
		negotiate(1)
	}
	return all
}

// portFor returns the port that is asked where none is said for it: the line's, or
// else the one that the service is known by; 0: the server's.
func (v *virtual) portFor(port uint16) uint16 {
	if port != 0 {
		return port
	}
	for number, service := range servicePorts {
		if service == v.service {
			return number
		}
	}
	return 0
}

// external returns the check by a command, which gets the virtual address and port and
// the server's.
func (v *virtual) external(key director.ServiceKey) (realserver.Check, bool) {
	virtual, host := []string{"%v", "%q"}, "%h"
	if v.v6 {
		virtual[0], host = "[%v]", "[%h]"
	}
	if key.IsMark() {
		virtual = []string{fmt.Sprint(key.Mark), "0"}
	}
	// ldirectord runs the whole text as one program.
	command := []string{v.command}
	if v.checkType == "external-perl" {
		command = []string{"/usr/bin/perl", translation.Escape(v.command)}
		v.once(translation.Assumed, v.commandAt, "ldirectord runs the Perl script within itself; here perl runs it anew each time")
	}
	if !path.IsAbs(v.command) {
		v.once(translation.NotCarried, v.commandAt, fmt.Sprintf("%q is not an absolute path: it is not asked, and does not take servers out", v.command))
		return realserver.Check{}, false
	}
	v.once(translation.Differs, v.commandAt, "ldirectord runs the checkcommand as root; Shunt as director.script-user, by default nobody")
	return realserver.Check{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: append(append(command, virtual...), host, "%p")}}, true
}

// negotiated returns what is asked of the service. Where Shunt does not speak the
// protocol it is the nearest thing, with a note of what is asked less.
func (v *virtual) negotiated(d directive, q question) (realserver.Check, bool) {
	greets := func(expect string) realserver.Check {
		return realserver.Check{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Expect: expect}}
	}
	secure := func(check realserver.Check) realserver.Check {
		check.TLS = &realserver.TLSCheck{SkipVerify: true} // as Perl's modules do here
		return check
	}
	less := func(check realserver.Check, what string) (realserver.Check, bool) {
		v.once(translation.Differs, v.serviceAt, fmt.Sprintf("service %s: %s", v.service, what))
		return check, true
	}
	switch v.service {
	case "http", "https":
		return v.http(d, q)
	case "dns":
		return v.dns(d, q)
	case "smtp", "submission":
		return realserver.Check{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{}}, true
	case "nntp":
		return greets("^2"), true
	case "simpletcp":
		check := realserver.Check{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Expect: v.expression(d, q.receive)}}
		if text := strings.TrimPrefix(q.request, "/"); text != "" {
			check.Exchange.Send = []byte(strings.ReplaceAll(text, `\n`, "\n"))
		}
		if check.Exchange.Expect == "" {
			check.Exchange.Expect = "^" // any answer
		}
		if v.protocol == conntrack.UDP {
			check.Kind = realserver.CheckUDP
		}
		return check, true
	case "pop":
		return less(greets(`^\+OK`), "the greeting is looked at; nobody logs in")
	case "pops":
		return less(secure(greets(`^\+OK`)), "the greeting is looked at; nobody logs in")
	case "imap":
		return less(greets(`^\* (OK|PREAUTH)`), "the greeting is looked at; nobody logs in")
	case "imaps":
		return less(secure(greets(`^\* (OK|PREAUTH)`)), "the greeting is looked at; nobody logs in")
	case "ftp":
		return less(greets("^220"), "the greeting is looked at; nobody logs in and gets a file")
	case "ldap":
		return less(realserver.Check{Kind: realserver.CheckTCP}, "a connection is made; nobody binds and searches")
	case "ldaps":
		return less(secure(realserver.Check{Kind: realserver.CheckTCP}), "a connection is made, with TLS; nobody binds and searches")
	case "mysql":
		// The first packet's number is 0, and its first octet the protocol's version, 10.
		return less(greets(`(?s)^.\x00\x00\x00\n`), "the greeting is looked at; nobody logs in and selects. MySQL counts connections that end so (max_connect_errors): a script that logs in is better")
	case "pgsql":
		// SSLRequest: its answer is S or N (PostgreSQL, Message Formats).
		check := greets("^[SN]")
		check.Exchange.Send = []byte{0, 0, 0, 8, 4, 210, 22, 47}
		return less(check, "whether TLS is spoken is asked; nobody logs in and selects")
	case "oracle", "http_proxy":
		return less(realserver.Check{Kind: realserver.CheckTCP}, "a connection is made; nothing is asked for")
	case "radius", "sip":
		kind := realserver.CheckUDP
		if v.protocol == conntrack.TCP && v.service == "sip" {
			kind = realserver.CheckTCP
		}
		return less(realserver.Check{Kind: kind}, "whether the port is refused is looked at; nothing is asked for")
	}
	v.once(translation.Assumed, v.serviceAt, "no service is known, or none is meant: ldirectord asks nothing, and takes servers for up; so does Shunt")
	return realserver.Check{}, false
}

// expression returns what an answer must match; nothing if Go's expressions cannot
// say it.
func (v *virtual) expression(d directive, text string) string {
	if _, err := regexp.Compile(text); err != nil {
		v.once(translation.Differs, d, fmt.Sprintf("Go's regular expressions are not Perl's: %v: the answer is not looked at for it", err))
		return ""
	}
	return text
}

// http returns a request. The URL of a line of servers may say another address.
func (v *virtual) http(d directive, q question) (realserver.Check, bool) {
	h := &realserver.HTTPCheck{
		Path: "/" + strings.TrimPrefix(q.request, "/"), Host: v.virtualHost, Match: v.expression(d, q.receive),
		Status: []realserver.StatusRange{{First: 200, Last: 399}},
	}
	if v.httpMethod != "GET" {
		h.Method = v.httpMethod
	}
	check := realserver.Check{Kind: realserver.CheckHTTP, HTTP: h}
	if v.service == "https" {
		h.Version = 1
		check.TLS = &realserver.TLSCheck{SkipVerify: true}
		if h.Host != "" {
			v.once(translation.Assumed, v.d, "Shunt names the virtual host to TLS, too (SNI)")
		}
	}
	v.once(translation.Differs, v.serviceAt, "ldirectord follows redirects, and wants 200 to 299 in the end; Shunt takes a redirect for an answer")
	if strings.Contains(q.request, v.service+"://") {
		u, err := url.Parse(strings.TrimPrefix(q.request, "/"))
		if err != nil || q.several || u.Hostname() != q.addr.String() {
			v.once(translation.NotCarried, d, "it asks another address, and Shunt asks the server itself: it is not asked, and does not take the server out")
			return check, false
		}
		if h.Path = u.RequestURI(); u.Port() != "" && u.Port() != fmt.Sprint(q.port) {
			v.once(translation.Differs, d, "the server's port is asked, and not the URL's: set checkport")
		}
	}
	return check, true
}

// dns returns a query. An address asks for its name.
func (v *virtual) dns(d directive, q question) (realserver.Check, bool) {
	query := &realserver.DNSCheck{Name: strings.TrimPrefix(q.request, "/"), Type: "A", TCP: v.protocol == conntrack.TCP}
	check := realserver.Check{Kind: realserver.CheckDNS, DNS: query}
	if query.Name == "" {
		v.once(translation.NotCarried, v.serviceAt, "service dns: there is no request, the name to ask for: it is not asked, and does not take servers out")
		return check, false
	}
	if addr, err := netip.ParseAddr(query.Name); err == nil {
		query.Name, query.Type = reverse(addr), "PTR"
	}
	answer := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(q.receive, "^"), "$"), `\.`, ".")
	if addr, err := netip.ParseAddr(answer); err == nil && addr.Is4() && query.Type == "A" {
		query.Answer = answer
	} else {
		v.once(translation.Differs, d, "service dns: any answer will do: receive is not an IPv4 address, which alone can be compared")
	}
	return check, true
}

// reverse returns the name that an address's name is asked by (RFC 1035 §3.5, RFC 3596
// §2.5).
func reverse(addr netip.Addr) string {
	octets := addr.AsSlice()
	var b strings.Builder
	for i := len(octets) - 1; i >= 0; i-- {
		if addr.Is4() {
			fmt.Fprintf(&b, "%d.", octets[i])
		} else {
			fmt.Fprintf(&b, "%x.%x.", octets[i]&0xf, octets[i]>>4)
		}
	}
	if addr.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
