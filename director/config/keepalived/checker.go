package keepalived

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// checker is a block such as TCP_CHECK as it is read.
type checker struct {
	n        *node
	check    realserver.Check // what is asked, without its pace
	urls     []url            // of HTTP_GET and SSL_GET
	settings settings
	retries  uint32 // where nothing is said
	// beforeRetry is delay_before_retry where nothing is said.
	beforeRetry   time.Duration
	scriptTimeout *time.Duration
	port          uint16     // connect_port; 0: the server's
	address       netip.Addr // connect_ip, if it is not the server's
	sni           bool
	skip          bool // it cannot be carried, which has been said

	asked []translation.Asked // with its pace; the port is what keepalived asks
}

// url is one of a checker's URLs.
type url struct {
	n    *node
	http realserver.HTTPCheck
}

// asDelayLoop has delay_before_retry be what delay_loop is.
const asDelayLoop = time.Duration(-1)

// checker reads a block that checks a server; false if it is none.
func (v *virtual) checker(r *real, n *node) bool {
	c := &checker{n: n, retries: 1, beforeRetry: time.Second}
	switch n.word(0) {
	case "TCP_CHECK":
		c.check.Kind = realserver.CheckTCP
	case "HTTP_GET", "SSL_GET":
		c.check.Kind, c.beforeRetry = realserver.CheckHTTP, 3*time.Second // keepalived: check_http.c, http_get_handler
		if n.word(0) == "SSL_GET" {
			// No certificate is verified by keepalived (check_ssl.c, build_ssl_ctx).
			c.check.TLS = &realserver.TLSCheck{SkipVerify: true, Certificate: v.globals.certificate, Key: v.globals.key}
		}
	case "SMTP_CHECK":
		c.check.Kind, c.check.SMTP = realserver.CheckSMTP, &realserver.SMTPCheck{}
	case "DNS_CHECK":
		// keepalived: check_dns.c, dns_check_handler and dns_check_end
		c.check.Kind, c.check.DNS = realserver.CheckDNS, &realserver.DNSCheck{Name: ".", Type: "SOA"}
		c.retries, c.beforeRetry = 3, asDelayLoop
		v.note(translation.Differs, n, "Shunt wants a record in the answer, too; keepalived no more than an answer without error")
	case "MISC_CHECK":
		c.check.Kind, c.check.Script = realserver.CheckScript, &realserver.ScriptCheck{User: v.globals.scriptUser}
		c.retries = 0 // keepalived: check_misc.c, misc_check_handler
	case "PING_CHECK":
		c.check.Kind = realserver.CheckICMP
	case "UDP_CHECK":
		c.check.Kind = realserver.CheckUDP
		if !n.has("payload") {
			v.note(translation.Differs, n, "keepalived sends random octets, Shunt an empty datagram")
		}
	default:
		return false
	}
	for _, directive := range n.body {
		v.checkerDirective(c, directive)
	}
	v.checkerEnd(c, r)
	if !c.skip {
		r.checkers = append(r.checkers, c)
	}
	return true
}

// checkerDirective reads a line of a checker.
func (v *virtual) checkerDirective(c *checker, n *node) {
	if c.check.Kind == realserver.CheckHTTP && n.word(0) == "virtualhost" || n.word(0) != "virtualhost" && n.word(0) != "inhibit_on_failure" {
		if v.setting(&c.settings, n, ofChecker) {
			return
		}
	}
	switch name := n.word(0); name {
	case "connect_ip":
		if addr, _, ok := address(n.word(1)); ok {
			c.address = addr
		} else {
			v.note(translation.Differs, n, fmt.Sprintf("%q is not an address: keepalived ignores it", n.word(1)))
		}
	case "connect_port":
		if port, ok := v.number(n, 1, 65535); ok {
			c.port = uint16(port)
		}
	case "bindto", "bind_port", "bind_if", "fwmark":
		v.note(translation.Differs, n, "Shunt asks from the address, and by the way, that the route to the server says")
	case "warmup":
		v.note(translation.NotCarried, n, noWarmup)
	case "log_all_failures":
		v.note(translation.NotCarried, n, "shunt health shows the last results, failures among them")
	default:
		if !v.ownDirective(c, n) {
			v.note(translation.NotCarried, n, unknownWord)
		}
	}
}

// ownDirective reads a line that only some checkers have.
func (v *virtual) ownDirective(c *checker, n *node) bool {
	switch kind, name := c.check.Kind, n.word(0); {
	case kind == realserver.CheckHTTP:
		return v.httpDirective(c, n)
	case kind == realserver.CheckScript:
		return v.scriptDirective(c, n)
	case kind == realserver.CheckUDP:
		return v.udpDirective(c, n)
	case kind == realserver.CheckSMTP && name == "helo_name":
		c.check.SMTP.Hello = n.word(1)
	case kind == realserver.CheckSMTP && name == "host":
		v.note(translation.NotCarried, n, "the server is asked at its own address alone; the hosts of a check are not")
	case kind == realserver.CheckDNS && name == "name":
		c.check.DNS.Name = n.word(1)
	case kind == realserver.CheckDNS && name == "type":
		if c.check.DNS.Type = strings.ToUpper(n.word(1)); c.check.DNS.Type == "" {
			c.check.DNS.Type = "SOA"
		}
	default:
		return false
	}
	return true
}

func (v *virtual) httpDirective(c *checker, n *node) bool {
	switch n.word(0) {
	case "url":
		v.url(c, n)
	case "http_protocol":
		if n.word(1) != "1.1" {
			v.note(translation.Differs, n, "Shunt asks by HTTP/1.1")
		}
	case "enable_sni":
		var yes *bool
		v.yesNo(&yes, n, ofChecker)
		c.sni = yes != nil && *yes
	case "fast_recovery":
		v.note(translation.NotCarried, n, "it is so in Shunt anyway: each URL is asked by itself")
	default:
		return false
	}
	return true
}

// url reads one of a checker's URLs.
func (v *virtual) url(c *checker, n *node) {
	u := url{n: n}
	expression, options, no := "", "", false
	for _, directive := range n.body {
		switch word := directive.word(1); directive.word(0) {
		case "path":
			u.http.Path = word
		case "virtualhost":
			u.http.Host = word
		case "digest":
			if len(word) != 32 || strings.Trim(word, "0123456789abcdefABCDEF") != "" {
				v.note(translation.Differs, directive, "it is no MD5 digest, 32 hexadecimal digits: keepalived ignores it")
			} else {
				u.http.Digest = strings.ToLower(word)
			}
		case "status_code":
			for _, word := range directive.args() {
				status, err := realserver.ParseStatusRange(word)
				if err != nil {
					v.note(translation.Differs, directive, err.Error())
					continue
				}
				u.http.Status = append(u.http.Status, status)
			}
		case "regex":
			expression = unescape(word)
		case "regex_no_match":
			no = true
		case "regex_options":
			options += v.regexOptions(directive)
		case "regex_min_offset", "regex_max_offset":
			v.note(translation.Differs, directive, "the expression is looked for in the body's first MiB")
		case "regex_stack":
			v.note(translation.NotCarried, directive, "Shunt's expressions need no stack")
		default:
			v.note(translation.NotCarried, directive, unknownWord)
		}
	}
	if u.http.Path == "" {
		v.note(translation.LeftOut, n, "the url has no path: keepalived ignores it")
		return
	}
	if len(u.http.Status) == 0 {
		u.http.Status = []realserver.StatusRange{{First: 200, Last: 299}} // keepalived: check_http.c, url_check
	}
	u.http.Match = v.match(n, expression, options, no)
	c.urls = append(c.urls, u)
}

// regexOptions returns the options that Go's expressions have, as (?…) has them.
func (v *virtual) regexOptions(n *node) (letters string) {
	for _, option := range n.args() {
		letter, known := map[string]string{"caseless": "i", "multiline": "m", "dotall": "s", "ungreedy": "U"}[option]
		if letters += letter; !known {
			v.note(translation.Differs, n, fmt.Sprintf("%s: Go's regular expressions have no such option", option))
		}
	}
	return letters
}

// match returns the expression that a body must match; nothing if Go's expressions
// cannot say it.
func (v *virtual) match(n *node, expression, options string, no bool) string {
	if expression != "" && options != "" {
		expression = "(?" + options + ")" + expression
	}
	switch _, err := regexp.Compile(expression); {
	case expression == "":
	case no:
		v.note(translation.Differs, n, "regex_no_match: Shunt cannot want a text not to be there: the body is not looked at for it")
	case err != nil:
		v.note(translation.Differs, n, fmt.Sprintf("regex: Go's regular expressions are not PCRE's: %v: the body is not looked at for it", err))
	default:
		return expression
	}
	return ""
}

// checkerEnd looks at a checker as a whole.
func (v *virtual) checkerEnd(c *checker, r *real) {
	skip := func(kind translation.Kind, why string) {
		v.note(kind, c.n, why)
		c.skip = true
	}
	switch {
	case c.address.IsValid() && c.address != r.addr:
		skip(translation.NotCarried, fmt.Sprintf("it asks %s, and Shunt asks the server itself: it is not asked, and does not take the server out", c.address))
	case c.check.Kind == realserver.CheckHTTP && len(c.urls) == 0:
		skip(translation.LeftOut, "there is no url: keepalived ignores the checker")
	case c.check.Script != nil && len(c.check.Script.Command) == 0:
		if !c.n.has("misc_path") {
			skip(translation.LeftOut, "there is no misc_path: keepalived ignores the checker")
		}
		c.skip = true
	}
	if c.skip {
		return
	}
	if len(c.urls) > 1 {
		v.note(translation.Differs, c.n, fmt.Sprintf("keepalived asks for one of the %d URLs every delay_loop, in turn; Shunt for each of them as often", len(c.urls)))
	}
	if script := c.check.Script; script != nil && script.User == "" && !v.globals.nobody {
		v.globals.nobody = true // said once
		v.note(translation.Differs, c.n, "no user is named for scripts: keepalived runs them as keepalived_script, or else as root; Shunt as director.script-user, by default nobody")
	}
	if smtp := c.check.SMTP; smtp != nil && smtp.Hello == "" {
		smtp.Hello = "smtpchecker.keepalived.org" // keepalived: check_smtp.h, SMTP_DEFAULT_HELO
	}
}

// finish makes the checks: all that is said is known by now.
func (v *virtual) finish(c *checker, r *real) {
	add := func(n *node, what string, check realserver.Check) {
		if check.Port = c.port; check.Port == 0 && check.Kind != realserver.CheckICMP && check.Kind != realserver.CheckScript {
			check.Port = r.port
		}
		c.asked = append(c.asked, translation.Asked{Source: translation.Source{At: n.at, What: what}, Check: check})
	}
	v.pace(c, r, &c.check)
	if c.check.Kind != realserver.CheckHTTP {
		add(c.n, c.n.String(), c.check)
		return
	}
	for _, u := range c.urls {
		check, http := c.check, u.http
		for _, host := range []string{c.settings.virtualhost, r.settings.virtualhost, v.settings.virtualhost} {
			if http.Host == "" {
				http.Host = host
			}
		}
		if check.TLS != nil {
			http.Version = 1 // and not HTTP/2, which ALPN might choose
			if http.Host != "" && !c.sni {
				v.noteOf(r, translation.Differs, c.n, "Shunt names the virtual host to TLS, too (SNI), which keepalived does with enable_sni")
			}
		}
		check.HTTP = &http
		add(u.n, translation.What(c.n.word(0), "url", http.Path), check)
	}
}
