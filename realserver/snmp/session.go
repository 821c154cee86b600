package snmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/gosnmp/gosnmp"

	"github.com/shunt-lb/shunt/realserver"
)

// Terms of a session.
const (
	tries       = 3    // of a question within the timeout
	maxRows     = 4096 // of a table
	rowsAtATime = 32   // one datagram's
	defaultName = "public"
)

// security is what of version 3 outlives a session: the engine's name, its clock, and the
// keys that were made for it, which takes a million octets of a hash each.
type security struct {
	parameters *gosnmp.UsmSecurityParameters
	engine     string
}

// session is a socket by which one host is asked. Only replies from the address and port
// asked come in: it is connected.
type session struct {
	client *gosnmp.GoSNMP
	terms  realserver.SNMP
}

// open returns a session until the context ends, with what is known of the host's
// security, or nil. The secrets are read anew where nothing is known.
func open(ctx context.Context, host netip.Addr, terms realserver.SNMP, known *security) (*session, error) {
	client := &gosnmp.GoSNMP{
		Target: host.String(), Port: terms.Port, Context: ctx, Version: gosnmp.Version2c,
		Timeout: terms.Timeout / tries, Retries: tries - 1,
	}
	if terms.Version == realserver.SNMPv3 {
		if known == nil {
			parameters, err := usm(terms)
			if err != nil {
				return nil, err
			}
			known = &security{parameters: parameters}
		}
		client.Version, client.SecurityModel = gosnmp.Version3, gosnmp.UserSecurityModel
		client.SecurityParameters, client.ContextEngineID = known.parameters, known.engine
		client.MsgFlags = level(terms)
	} else if client.Community = defaultName; terms.CommunityFile != "" {
		var err error
		if client.Community, err = readSecret(terms.CommunityFile); err != nil {
			return nil, err
		}
	}
	if err := client.Connect(); err != nil {
		return nil, err
	}
	client.Conn = &oneRefusal{Conn: client.Conn}
	return &session{client: client, terms: terms}, nil
}

// oneRefusal is a connected UDP socket that stays refused. A host tells so once a second
// or so (kernel: net/ipv4/icmp.c, icmpv4_xrlim_allow): to try again is to wait in vain.
type oneRefusal struct {
	net.Conn
	err error
}

// Read implements net.Conn.
func (c *oneRefusal) Read(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.Conn.Read(b)
	return n, c.note(err)
}

// Write implements net.Conn.
func (c *oneRefusal) Write(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.Conn.Write(b)
	return n, c.note(err)
}

func (c *oneRefusal) note(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		c.err = err
	}
	return err
}

// usm returns the parameters of the user-based security model.
func usm(terms realserver.SNMP) (*gosnmp.UsmSecurityParameters, error) {
	p := &gosnmp.UsmSecurityParameters{
		UserName: terms.User, AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv,
	}
	for _, secret := range []struct {
		file string
		to   *string
	}{{terms.AuthFile, &p.AuthenticationPassphrase}, {terms.PrivFile, &p.PrivacyPassphrase}} {
		if secret.file == "" {
			continue
		}
		text, err := readSecret(secret.file)
		if err == nil && len(text) < leastPassphrase {
			err = fmt.Errorf("read the secret in %s: a passphrase of less than %d bytes (RFC 3414 §11.2)", secret.file, leastPassphrase)
		}
		if err != nil {
			return nil, err
		}
		*secret.to = text
	}
	if terms.Auth != realserver.SNMPAuthNone {
		p.AuthenticationProtocol = authProtocols[terms.Auth]
	}
	if terms.Priv != realserver.SNMPPrivNone {
		p.PrivacyProtocol = privProtocols[terms.Priv]
	}
	return p, nil
}

var authProtocols = map[realserver.SNMPAuth]gosnmp.SnmpV3AuthProtocol{
	realserver.SNMPAuthMD5: gosnmp.MD5, realserver.SNMPAuthSHA: gosnmp.SHA, realserver.SNMPAuthSHA224: gosnmp.SHA224,
	realserver.SNMPAuthSHA256: gosnmp.SHA256, realserver.SNMPAuthSHA384: gosnmp.SHA384, realserver.SNMPAuthSHA512: gosnmp.SHA512,
}

var privProtocols = map[realserver.SNMPPriv]gosnmp.SnmpV3PrivProtocol{
	realserver.SNMPPrivDES: gosnmp.DES, realserver.SNMPPrivAES: gosnmp.AES, realserver.SNMPPrivAES192: gosnmp.AES192,
	realserver.SNMPPrivAES256: gosnmp.AES256, realserver.SNMPPrivAES192C: gosnmp.AES192C, realserver.SNMPPrivAES256C: gosnmp.AES256C,
}

func level(terms realserver.SNMP) gosnmp.SnmpV3MsgFlags {
	switch {
	case terms.Priv != realserver.SNMPPrivNone:
		return gosnmp.AuthPriv
	case terms.Auth != realserver.SNMPAuthNone:
		return gosnmp.AuthNoPriv
	}
	return gosnmp.NoAuthNoPriv
}

// security returns what was learnt, for the next session; nil of version 2c.
func (s *session) security() *security {
	if p, ok := s.client.SecurityParameters.(*gosnmp.UsmSecurityParameters); ok {
		return &security{parameters: p, engine: s.client.ContextEngineID}
	}
	return nil
}

// isKnown reports whether the host has told the name of its engine.
func (s *session) isKnown() bool {
	p, ok := s.client.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	return ok && p.AuthoritativeEngineID != ""
}

// abort has whoever asks return with an error. Safe for concurrent use, unlike the rest.
func (s *session) abort() func() error {
	return s.client.Conn.Close // of this socket: the client's field is not read again
}

func (s *session) close() { _ = s.client.Close() }

// get returns the values of the objects, in their order: as many as were asked for, some
// of which may be missing.
func (s *session) get(oids []string) ([]gosnmp.SnmpPDU, error) {
	packet, err := s.client.Get(oids)
	if err = valid(packet, err); err != nil {
		return nil, err
	}
	if len(packet.Variables) != len(oids) {
		return nil, fmt.Errorf("the answer has %d values, of %d asked for", len(packet.Variables), len(oids))
	}
	for i, v := range packet.Variables {
		if strings.TrimPrefix(v.Name, ".") != strings.TrimPrefix(oids[i], ".") {
			return nil, fmt.Errorf("the answer has %.60s in place of %s", v.Name, oids[i])
		}
	}
	return packet.Variables, nil
}

// count returns how many rows a column has.
func (s *session) count(column string) (int, error) {
	rows, last := 0, column
	for rows < maxRows {
		packet, err := s.client.GetBulk([]string{last}, 0, rowsAtATime)
		if err = valid(packet, err); err != nil {
			return 0, err
		}
		if len(packet.Variables) == 0 {
			return rows, nil
		}
		for _, v := range packet.Variables {
			name := strings.TrimPrefix(v.Name, ".")
			if v.Type == gosnmp.EndOfMibView || !strings.HasPrefix(name, column+".") {
				return rows, nil
			}
			if name == last {
				return 0, fmt.Errorf("the table %s does not end", column)
			}
			last = name
			rows++
		}
	}
	return 0, fmt.Errorf("the table %s has more than %d rows", column, maxRows)
}

// valid says why a packet is no answer. gosnmp has looked at the request's number, but
// lets 0 pass, which it never sends but once in two thousand million.
func valid(packet *gosnmp.SnmpPacket, err error) error {
	switch {
	case err != nil:
		return err
	case packet == nil:
		return errors.New("the answer is empty")
	case packet.PDUType != gosnmp.GetResponse || packet.RequestID == 0:
		return fmt.Errorf("the answer is none: a PDU of type %#x", byte(packet.PDUType))
	case packet.Error != gosnmp.NoError:
		return fmt.Errorf("the host answers with the error %s", packet.Error)
	}
	return nil
}
