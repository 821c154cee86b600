package api

import (
	"fmt"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// chosen reads one of the words; the first is the default, which the domain has as "".
func chosen[T ~string](field, text string, words ...string) (T, error) {
	switch {
	case text == "" || text == words[0]:
		return "", nil
	case slices.Contains(words, text):
		return T(text), nil
	default:
		return "", invalid(fmt.Sprintf("health: unknown %s %.40q: want %s", field, text, orWords(words)), "")
	}
}

// orWords writes "a, b or c".
func orWords(words []string) string {
	text := words[0]
	for i, word := range words[1:] {
		if i == len(words)-2 {
			text += " or " + word
		} else {
			text += ", " + word
		}
	}
	return text
}

// health turns the model into the director's value; a sorry server's missing port is
// the service's.
func (h Health) health(key director.ServiceKey) (director.Health, error) {
	value := director.Health{
		Quorum: h.Quorum, Hysteresis: h.Hysteresis, Panic: h.Panic, SlowStart: time.Duration(h.SlowStart),
		Maintenance: h.Maintenance, Pool: h.Pool,
	}
	var err error
	if value.Initial, err = chosen[director.Initial]("initial", h.Initial, "down", "up"); err != nil {
		return value, err
	}
	if value.Down, err = chosen[director.DownAction]("down", h.Down, "inhibit", "remove"); err != nil {
		return value, err
	}
	if value.Established, err = chosen[director.Established]("established", h.Established, "keep", "cut"); err != nil {
		return value, err
	}
	for i, model := range h.Checks {
		check, err := model.check()
		if err != nil {
			return value, located(err, "health: checks", i)
		}
		value.Checks = append(value.Checks, check)
	}
	for i, model := range h.Sorry {
		server, err := model.server(key)
		if err != nil {
			return value, located(err, "health: sorry", i)
		}
		value.Sorry = append(value.Sorry, server)
	}
	if d := h.Damping; d != nil {
		value.Damping = director.Damping{Changes: d.Changes, Within: time.Duration(d.Within), Hold: time.Duration(d.Hold)}
	}
	if p := h.Passive; p != nil {
		value.Passive = director.Passive{
			Unanswered: p.Unanswered, Resets: p.Resets, Unreachable: p.Unreachable,
			Within: time.Duration(p.Within), Suspend: time.Duration(p.Suspend),
		}
	}
	if n := h.Notify; n != nil {
		value.Notify = director.Notify{Up: n.Up, Down: n.Down, QuorumUp: n.QuorumUp, QuorumDown: n.QuorumDown, FIFO: n.FIFO}
	}
	if l := h.Load; l != nil {
		value.Load = director.LoadPolicy{Kind: director.LoadKind(l.Kind), Minimum: l.Minimum, Maximum: l.Maximum, Silence: time.Duration(l.Silence)}
		if l.SNMP != nil {
			if value.Load.SNMP, err = l.SNMP.terms(); err != nil {
				return value, err
			}
		}
	}
	return value, nil
}

// setHealth takes a policy over; nil leaves it as it is.
func setHealth(s *director.Service, from *Health) error {
	if from == nil {
		return nil
	}
	health, err := from.health(s.Key)
	if err == nil {
		s.Health = health
	}
	return err
}

// check turns the model into the domain's value. What of a kind has no terms that are
// required need not be given.
func (c Check) check() (realserver.Check, error) {
	value := realserver.Check{
		Kind: realserver.CheckKind(c.Kind), Port: c.Port, Via: realserver.CheckVia(c.Via),
		Interval: time.Duration(c.Interval), Timeout: time.Duration(c.Timeout), Retry: time.Duration(c.Retry),
		Rise: c.Rise, Fall: c.Fall,
	}
	if t := c.TLS; t != nil {
		value.TLS = &realserver.TLSCheck{
			ServerName: t.ServerName, CA: t.CA, Certificate: t.Certificate, Key: t.Key, SkipVerify: t.SkipVerify,
			ExpiryWarning: time.Duration(t.ExpiryWarning), RefuseWhenExpired: t.RefuseExpired,
		}
	}
	if d := c.DNS; d != nil {
		value.DNS = &realserver.DNSCheck{Name: d.Name, Type: d.Type, Answer: d.Answer, TCP: d.TCP}
	}
	if e := c.Exchange; e != nil {
		value.Exchange = &realserver.ExchangeCheck{Expect: e.Expect}
		if len(e.Send) > 0 { // nothing is nil, in however many ways it can be written
			value.Exchange.Send = e.Send
		}
	}
	if c.GRPC != nil {
		value.GRPC = &realserver.GRPCCheck{Service: c.GRPC.Service}
	}
	if c.SMTP != nil {
		value.SMTP = &realserver.SMTPCheck{Hello: c.SMTP.Hello, STARTTLS: c.SMTP.STARTTLS}
	}
	if c.File != nil {
		value.File = &realserver.FileCheck{Path: c.File.Path}
	}
	if s := c.Script; s != nil {
		status, err := chosen[realserver.StatusMeaning]("script: status", s.Status, "plain", "nagios", "weight")
		if err != nil {
			return value, err
		}
		value.Script = &realserver.ScriptCheck{Command: s.Command, User: s.User, Status: status}
	}
	if c.HTTP != nil {
		var err error
		if value.HTTP, err = c.HTTP.http(); err != nil {
			return value, err
		}
	}
	return value.Filled(), nil
}

func (c HTTPCheck) http() (*realserver.HTTPCheck, error) {
	value := &realserver.HTTPCheck{Version: c.Version, Method: c.Method, Path: c.Path, Host: c.Host, Match: c.Match, Digest: c.Digest}
	for _, text := range c.Headers {
		header, err := realserver.ParseHeader(text)
		if err != nil {
			return nil, invalid("http: headers: "+err.Error(), "")
		}
		value.Headers = append(value.Headers, header)
	}
	for _, text := range c.Status {
		codes, err := realserver.ParseStatusRange(text)
		if err != nil {
			return nil, invalid("http: status: "+err.Error(), "")
		}
		value.Status = append(value.Status, codes)
	}
	return value, nil
}

// healthModel is the reverse of Health.health; nil for none.
func healthModel(h director.Health) *Health {
	if h.IsZero() {
		return nil
	}
	model := &Health{
		Initial: string(h.Initial), Down: string(h.Down), Established: string(h.Established), Quorum: h.Quorum, Hysteresis: h.Hysteresis,
		Panic: h.Panic, SlowStart: Duration(h.SlowStart), Maintenance: h.Maintenance, Pool: h.Pool,
	}
	for _, check := range h.Checks {
		model.Checks = append(model.Checks, checkModel(check))
	}
	for _, server := range h.Sorry {
		model.Sorry = append(model.Sorry, serverConfig(server))
	}
	if d := h.Damping; d != (director.Damping{}) {
		model.Damping = &Damping{Changes: d.Changes, Within: Duration(d.Within), Hold: Duration(d.Hold)}
	}
	if p := h.Passive; p != (director.Passive{}) {
		model.Passive = &Passive{
			Unanswered: p.Unanswered, Resets: p.Resets, Unreachable: p.Unreachable, Within: Duration(p.Within), Suspend: Duration(p.Suspend),
		}
	}
	notify := Notify{Up: h.Notify.Up, Down: h.Notify.Down, QuorumUp: h.Notify.QuorumUp, QuorumDown: h.Notify.QuorumDown, FIFO: h.Notify.FIFO}
	if len(notify.Up)+len(notify.Down)+len(notify.QuorumUp)+len(notify.QuorumDown) > 0 || notify.FIFO != "" {
		model.Notify = &notify
	}
	if l := h.Load; l != (director.LoadPolicy{}) {
		model.Load = &LoadPolicy{Kind: string(l.Kind), Minimum: l.Minimum, Maximum: l.Maximum, Silence: Duration(l.Silence), SNMP: snmpModel(l.SNMP)}
	}
	return model
}

// checkModel is the reverse of Check.check.
func checkModel(c realserver.Check) Check {
	model := Check{
		Kind: string(c.Kind), Port: c.Port, Via: string(c.Via), Interval: Duration(c.Interval), Timeout: Duration(c.Timeout),
		Retry: Duration(c.Retry), Rise: c.Rise, Fall: c.Fall,
	}
	if t := c.TLS; t != nil {
		model.TLS = &TLSCheck{
			ServerName: t.ServerName, CA: t.CA, Certificate: t.Certificate, Key: t.Key, SkipVerify: t.SkipVerify,
			ExpiryWarning: Duration(t.ExpiryWarning), RefuseExpired: t.RefuseWhenExpired,
		}
	}
	if h := c.HTTP; h != nil {
		model.HTTP = &HTTPCheck{Version: h.Version, Method: h.Method, Path: h.Path, Host: h.Host, Match: h.Match, Digest: h.Digest}
		for _, header := range h.Headers {
			model.HTTP.Headers = append(model.HTTP.Headers, header.String())
		}
		for _, codes := range h.Status {
			model.HTTP.Status = append(model.HTTP.Status, codes.String())
		}
	}
	if d := c.DNS; d != nil {
		model.DNS = &DNSCheck{Name: d.Name, Type: d.Type, Answer: d.Answer, TCP: d.TCP}
	}
	if e := c.Exchange; e != nil {
		model.Exchange = &ExchangeCheck{Send: e.Send, Expect: e.Expect}
	}
	if c.GRPC != nil {
		model.GRPC = &GRPCCheck{Service: c.GRPC.Service}
	}
	if c.SMTP != nil {
		model.SMTP = &SMTPCheck{Hello: c.SMTP.Hello, STARTTLS: c.SMTP.STARTTLS}
	}
	if s := c.Script; s != nil {
		model.Script = &ScriptCheck{Command: s.Command, User: s.User, Status: string(s.Status)}
	}
	if c.File != nil {
		model.File = &FileCheck{Path: c.File.Path}
	}
	return model
}
