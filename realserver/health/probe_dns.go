package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shunt-lb/shunt/realserver"
)

// maxDatagram is more than a server sends over UDP to who does not say what it takes
// (RFC 1035 §4.2.1), bytes.
const maxDatagram = 4096

// dnsProbe asks for records, over UDP, and again over TCP if the answer did not fit.
type dnsProbe struct {
	link     *connector
	question dnsmessage.Question
	query    []byte // with the id 0
	answer   string // "": any
	tcp      bool
}

// dnsTypes are the types by name; as realserver.DNSTypes.
func dnsTypes() map[string]dnsmessage.Type {
	return map[string]dnsmessage.Type{
		"": dnsmessage.TypeA, "A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME,
		"MX": dnsmessage.TypeMX, "NS": dnsmessage.TypeNS, "PTR": dnsmessage.TypePTR, "SOA": dnsmessage.TypeSOA,
		"SRV": dnsmessage.TypeSRV, "TXT": dnsmessage.TypeTXT,
	}
}

// newDNSProbe returns the probe of a validated check.
func newDNSProbe(check realserver.DNSCheck, link *connector) *dnsProbe {
	name := check.Name
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	p := &dnsProbe{
		link: link, answer: check.Answer, tcp: check.TCP,
		question: dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: dnsTypes()[strings.ToUpper(check.Type)], Class: dnsmessage.ClassINET},
	}
	message := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true}, Questions: []dnsmessage.Question{p.question}}
	query, err := message.Pack()
	if err != nil {
		panic("health: a validated name that cannot be encoded: " + err.Error())
	}
	p.query = query
	return p
}

func (p *dnsProbe) ask(ctx context.Context) Result {
	// An answer to another's query is no answer of this server.
	id := uint16(rand.Uint32())
	query := binary.BigEndian.AppendUint16(nil, id)
	query = append(query, p.query[2:]...)
	if p.tcp {
		return p.askStream(ctx, query, id)
	}
	conn, err := p.link.connect(ctx, "udp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	if _, err := conn.Write(query); err != nil {
		return Result{Err: because("send the query", err)}
	}
	var foreign error
	buffer := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			// What came in place of an answer says more than that none came.
			return Result{Err: errors.Join(because("wait for an answer", err), foreign)}
		}
		result, next := p.judge(buffer[:n], id)
		switch next {
		case readOn:
			foreign = result.Err
		case askAgain:
			return p.askStream(ctx, query, id)
		case done:
			return result
		}
	}
}

// askStream asks over TCP, where messages have their length before them (RFC 1035 §4.2.2).
func (p *dnsProbe) askStream(ctx context.Context, query []byte, id uint16) Result {
	conn, err := p.link.connect(ctx, "tcp")
	if err != nil {
		return Result{Err: err}
	}
	defer conn.Close()
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(query)))
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return Result{Err: because("send the query", err)}
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return Result{Err: because("read the answer", err)}
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return Result{Err: because("read the answer", err)}
	}
	result, next := p.judge(answer, id)
	if next == askAgain {
		return Result{Err: errors.New("the answer over TCP is cut off")}
	}
	return result
}

// next is what follows from a message.
type next int

const (
	done     next = iota
	readOn        // it is not of our query; the result says how
	askAgain      // it did not fit
)

// judge looks at a message. It keeps nothing of it.
func (p *dnsProbe) judge(message []byte, id uint16) (Result, next) {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil {
		return Result{Err: fmt.Errorf("read the answer: %w", err)}, readOn
	}
	if header.ID != id || !header.Response {
		return Result{Err: errors.New("what came is no answer to this query")}, readOn
	}
	if header.RCode != dnsmessage.RCodeSuccess {
		// Its question may be missing (RFC 1035 §4.1.1, format error).
		return Result{Err: fmt.Errorf("the server answers %s", rcode(header.RCode))}, done
	}
	questions, err := parser.AllQuestions()
	if err != nil {
		return Result{Err: fmt.Errorf("read the answer's question: %w", err)}, done
	}
	if len(questions) != 1 || !sameQuestion(questions[0], p.question) {
		return Result{Err: errors.New("what came answers another question")}, readOn
	}
	if header.Truncated {
		return Result{}, askAgain
	}
	return p.records(&parser), done
}

// sameQuestion compares without regard to case (RFC 4343).
func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// rcode names an error as the registry does (RFC 1035 §4.1.1).
func rcode(code dnsmessage.RCode) string {
	names := map[dnsmessage.RCode]string{
		dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeNameError: "NXDOMAIN",
		dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
	}
	if name, ok := names[code]; ok {
		return name
	}
	return fmt.Sprintf("RCODE %d", code)
}
