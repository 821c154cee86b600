package health

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// records looks for the answer that is wanted among a message's records.
func (p *dnsProbe) records(parser *dnsmessage.Parser) Result {
	count, first := 0, ""
	for {
		header, err := parser.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return Result{Err: fmt.Errorf("read the answer's records: %w", err)}
		}
		if header.Type != p.question.Type || header.Class != p.question.Class {
			// A CNAME on the way to what was asked for, or a signature.
			if err := parser.SkipAnswer(); err != nil {
				return Result{Err: fmt.Errorf("read the answer's records: %w", err)}
			}
			count++
			continue
		}
		value, err := recordValue(parser, header.Type)
		if err != nil {
			return Result{Err: fmt.Errorf("read the answer's records: %w", err)}
		}
		count++
		if first == "" {
			first = value
		}
		if p.answer != "" && sameValue(header.Type, value, p.answer) {
			return Result{Detail: printable(value)}
		}
	}
	switch {
	case count == 0:
		return Result{Err: errors.New("the answer has no record")}
	case p.answer != "":
		return Result{Detail: printable(first), Err: fmt.Errorf("%q is not among the answer's %d records", p.answer, count)}
	default:
		return Result{Detail: printable(first)}
	}
}

// recordValue returns the next record's value as zone files have it.
func recordValue(parser *dnsmessage.Parser, kind dnsmessage.Type) (string, error) {
	record, err := parser.Answer()
	if err != nil {
		return "", err
	}
	switch body := record.Body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(body.A).String(), nil
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(body.AAAA).String(), nil
	case *dnsmessage.CNAMEResource:
		return body.CNAME.String(), nil
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", body.Pref, body.MX), nil
	case *dnsmessage.NSResource:
		return body.NS.String(), nil
	case *dnsmessage.PTRResource:
		return body.PTR.String(), nil
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%s %s %d %d %d %d %d", body.NS, body.MBox, body.Serial, body.Refresh, body.Retry, body.Expire, body.MinTTL), nil
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %s", body.Priority, body.Weight, body.Port, body.Target), nil
	case *dnsmessage.TXTResource:
		return strings.Join(body.TXT, ""), nil
	default:
		return "", fmt.Errorf("a record of type %s that is none", kind)
	}
}

// sameValue compares a record's value with a configured one: addresses as such, names
// without regard to case and the last dot, texts as they are.
func sameValue(kind dnsmessage.Type, value, want string) bool {
	switch kind {
	case dnsmessage.TypeTXT:
		return value == want
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		addr, err := netip.ParseAddr(want)
		return err == nil && addr.String() == value
	default:
		trim := func(s string) string { return strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".") }
		return strings.EqualFold(trim(value), trim(want))
	}
}
