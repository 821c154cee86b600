package api

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tokenPrefix makes a token known for what it is where it has leaked.
const tokenPrefix = "shunt_"

// NewToken returns a token with 256 random bits and the hash that stands for it
// in the tokens file; the token itself is kept nowhere.
func NewToken() (token, hash string) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails: it ends the program rather
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:])
}

// AgentTerms are what the token of an agent lets it register; other roles have none.
type AgentTerms struct {
	Pools []string // handles; an agent has one at least
	// Servers are the networks that its servers are in, or their addresses; empty: they
	// may have any address.
	Servers []string
}

// These separate a role from its pools in a line of the tokens file, and begin the field
// of its networks.
const (
	poolSeparator = ":"
	serversWord   = "servers:"
)

// TokenLine returns the line of a tokens file; a zero time is no expiry. The name of an
// agent's token is the agent's.
func TokenLine(name string, role Role, hash string, expires time.Time, terms AgentTerms) (string, error) {
	line := name + " " + role.String()
	if len(terms.Pools) > 0 {
		line += poolSeparator + strings.Join(terms.Pools, ",")
	}
	if len(terms.Servers) > 0 {
		line += " " + serversWord + strings.Join(terms.Servers, ",")
	}
	line += " " + hash
	if !expires.IsZero() {
		line += " " + expires.UTC().Format(time.RFC3339)
	}
	_, err := parseToken(line)
	return line, err
}

// token is a line of the tokens file.
type token struct {
	name    string
	role    Role
	scope   scope // an agent's
	hash    [sha256.Size]byte
	expires time.Time // zero: never
}

// maxTokens is how many lines a tokens file may have: each is compared with each
// token that is shown.
const maxTokens = 10000

// readTokens reads a tokens file: a line each of name, role, SHA-256 of the
// token in hexadecimal and perhaps an expiry (RFC 3339); comments begin with #. An
// agent's role is followed by its pools, and perhaps by a field of the networks of its
// servers: agent:web,mail servers:10.1.2.0/24,2001:db8::7.
// The error joins one for every bad line.
func readTokens(file string) ([]token, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	if info.Mode().Perm()&0o027 != 0 {
		return nil, fmt.Errorf("read the tokens: %s has mode %#o: others must not read it, nor its group write it; chmod 0640 %s", file, info.Mode().Perm(), file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	return parseTokens(file, text)
}

func parseTokens(file string, text []byte) ([]token, error) {
	var tokens []token
	var problems []error
	lines := make(map[[sha256.Size]byte]int)
	scanner := bufio.NewScanner(bytes.NewReader(text))
	n := 0
	for scanner.Scan() {
		n++
		line, _, _ := strings.Cut(scanner.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		t, err := parseToken(line)
		switch first, found := lines[t.hash]; {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		case found:
			problems = append(problems, fmt.Errorf("%s:%d: the token of line %d again", file, n, first))
			continue
		case len(tokens) == maxTokens:
			return nil, fmt.Errorf("%s:%d: more than %d tokens", file, n, maxTokens)
		}
		lines[t.hash] = n
		tokens = append(tokens, t)
	}
	if err := scanner.Err(); err != nil {
		problems = append(problems, fmt.Errorf("%s:%d: %w", file, n+1, err))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return tokens, nil
}

// tokenName keeps names harmless in logs and the history.
var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

func parseToken(line string) (token, error) {
	fields := strings.Fields(line)
	count, servers, hasServers := len(fields), "", false
	if count > 2 {
		if servers, hasServers = strings.CutPrefix(fields[2], serversWord); hasServers {
			fields = slices.Delete(fields, 2, 3)
		}
	}
	if len(fields) < 3 || len(fields) > 4 {
		return token{}, fmt.Errorf("%d fields: want name, role, perhaps an agent's %sPREFIX,PREFIX, SHA-256 in hexadecimal and perhaps an expiry", count, serversWord)
	}
	t := token{name: fields[0]}
	if !tokenName.MatchString(t.name) {
		return token{}, fmt.Errorf("name %q: want 1 to 63 letters, digits, '.', '_', '@' or '-', a letter or digit first", t.name)
	}
	var err error
	role, pools, hasPools := strings.Cut(fields[1], poolSeparator)
	if t.role, err = ParseRole(role); err != nil {
		return token{}, err
	}
	switch {
	case t.role == Agent && !hasPools:
		return token{}, fmt.Errorf("token %s: an agent has pools: --pool, or agent%sPOOL,POOL in its line", t.name, poolSeparator)
	case t.role == Agent:
		var networks []string
		if hasServers {
			networks = strings.Split(servers, ",")
		}
		if t.scope, err = newScope(t.name, strings.Split(pools, ","), networks); err != nil {
			return token{}, fmt.Errorf("token %s: %w", t.name, err)
		}
	case hasPools:
		return token{}, fmt.Errorf("token %s: only an agent has pools, not %s", t.name, withArticle(t.role))
	case hasServers:
		return token{}, fmt.Errorf("token %s: only an agent has servers, not %s", t.name, withArticle(t.role))
	}
	hash, err := hex.DecodeString(fields[2])
	if err != nil || len(hash) != sha256.Size {
		// The text is not shown: it may be the token itself.
		return token{}, fmt.Errorf("token %s: the field behind its role, or its servers, is not a SHA-256 in hexadecimal: `shunt token create` prints it", t.name)
	}
	t.hash = [sha256.Size]byte(hash)
	if len(fields) == 4 {
		if t.expires, err = time.Parse(time.RFC3339, fields[3]); err != nil {
			return token{}, fmt.Errorf("token %s: expiry %q is not a time such as 2027-01-31T00:00:00Z", t.name, fields[3])
		}
	}
	return t, nil
}

// tokenCaller returns who the shown token stands for. It compares with every
// token in the same time, whichever it is.
func tokenCaller(tokens []token, shown string, now time.Time) (caller, error) {
	hash := sha256.Sum256([]byte(shown))
	at := -1
	for i := range tokens {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], tokens[i].hash[:]), i, at)
	}
	if at < 0 {
		return caller{}, unauthorized("the token is not known", "make one with `shunt token create` and add its line to the daemon's tokens file")
	}
	t := tokens[at]
	if !t.expires.IsZero() && !now.Before(t.expires) {
		return caller{}, unauthorized(fmt.Sprintf("token %s expired at %s", t.name, t.expires.Format(time.RFC3339)), "make another with `shunt token create`")
	}
	return caller{who: "token " + t.name, role: t.role, scope: t.scope}, nil
}
