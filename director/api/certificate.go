package api

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// unitPrefix begins the organizational unit that gives a certificate its role.
const unitPrefix = "shunt-"

// certificateCaller returns who a client's certificates stand for: the first is
// the client's own, the others may lead to the CA. TLS has proved by then that
// the client has the key; whether the certificate is any good is looked at here
// and not in the handshake, so that a refused client is told why.
func certificateCaller(chain []*x509.Certificate, ca *x509.CertPool, now time.Time) (caller, error) {
	own := chain[0]
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	who := "certificate " + harmless(own.Subject.String())
	_, err := own.Verify(x509.VerifyOptions{
		Roots: ca, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return caller{}, unauthorized(fmt.Sprintf("%s: %s", who, explainCertificate(own, err)), "show one that the daemon's client CA has signed and whose time is not over")
	}
	role, err := roleOf(own.Subject.OrganizationalUnit)
	if err != nil {
		return caller{}, unauthorized(fmt.Sprintf("%s: %v", who, err),
			"the subject of a client certificate has the organizational unit shunt-agent, shunt-viewer, shunt-operator or shunt-admin")
	}
	c := caller{who: who, role: role}
	if role == Agent {
		if c.scope, err = scopeOf(own.Subject); err != nil {
			return caller{}, unauthorized(fmt.Sprintf("%s: %v", who, err),
				"the common name of an agent's certificate is its name, its organizational units shunt-pool-NAME are its pools, and shunt-servers-PREFIX networks of its servers")
		}
	}
	return c, nil
}

// These begin the organizational units that give an agent its pools and its networks.
const (
	poolPrefix    = unitPrefix + "pool-"
	serversPrefix = unitPrefix + "servers-"
)

// scopeOf reads an agent's scope of its certificate's subject. A unit that is misspelt
// could be the one that was to bound it.
func scopeOf(subject pkix.Name) (scope, error) {
	var pools, networks []string
	for _, unit := range subject.OrganizationalUnit {
		own, isOurs := strings.CutPrefix(unit, unitPrefix)
		_, problem := ParseRole(own)
		if pool, ok := strings.CutPrefix(unit, poolPrefix); ok {
			pools = append(pools, pool)
		} else if network, ok := strings.CutPrefix(unit, serversPrefix); ok {
			networks = append(networks, network)
		} else if isOurs && problem != nil {
			return scope{}, fmt.Errorf("organizational unit %q is none of an agent's", harmless(unit))
		}
	}
	return newScope(subject.CommonName, pools, networks)
}

// roleOf reads the role of the units. Two roles may be a mistake: which was
// meant is not guessed.
func roleOf(units []string) (Role, error) {
	var roles []Role
	for _, unit := range units {
		if role, err := ParseRole(strings.TrimPrefix(unit, unitPrefix)); err == nil && strings.HasPrefix(unit, unitPrefix) {
			roles = append(roles, role)
		}
	}
	switch len(roles) {
	case 0:
		return public, errors.New("no organizational unit gives it a role")
	case 1:
		return roles[0], nil
	default:
		return public, errors.New("its organizational units give it more than one role")
	}
}

// explainCertificate is shorter than x509's words, which begin with its name.
func explainCertificate(cert *x509.Certificate, err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Sprintf("valid from %s to %s only", cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "not signed by the daemon's client CA"
	}
	return harmless(strings.TrimPrefix(err.Error(), "x509: "))
}

// harmless replaces what could play tricks on a terminal, and shortens.
func harmless(text string) string {
	const most = 200
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	if runes := []rune(clean); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return clean
}
