package api

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/director/event"
)

func TestTokensFile(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, test := range []struct {
		name, text string
		want       []string // each is a line of the error
	}{
		{"good", "# c\n\na viewer " + hash + "\nb admin " + strings.Repeat("cd", 32) + " 2030-01-01T00:00:00Z # c\n", nil},
		{"empty", "", nil},
		{
			"all_problems_at_once",
			"a\na viewer xx\nb root " + hash + "\n-c viewer " + hash + "\nd viewer " + hash + " tomorrow\ne viewer " + hash + " 2030-01-01T00:00:00Z x\n",
			[]string{
				"tokens:1: 1 fields: want name, role,", "tokens:2: token a: the field behind its role, or its servers, is not a SHA-256", "tokens:3: unknown role \"root\"",
				"tokens:4: name \"-c\"", "tokens:5: token d: expiry \"tomorrow\" is not a time", "tokens:6: 5 fields",
			},
		},
		{"twice", "a viewer " + hash + "\nb admin " + strings.ToUpper(hash) + "\n", []string{"tokens:2: the token of line 1 again"}},
		{
			"agents", "a agent:web " + hash + "\nb agent:web,mail servers:10.1.2.0/24,2001:db8::/64,10.9.9.9 " +
				strings.Repeat("cd", 32) + " 2030-01-01T00:00:00Z # c\n", nil,
		},
		{
			"bad_networks",
			"a agent:web servers: " + hash + "\nb agent:web servers:10.1.2.0/24,,10.0.0.1 " + hash + "\nc agent:web servers:10.1.2.3/24 " + hash +
				"\nd agent:web servers:10.0.0.0/33 " + hash + "\ne agent:web servers:s1.example " + hash + "\nf agent:web servers:::ffff:10.0.0.1 " + hash +
				"\ng agent:web servers:fe80::1%eth0 " + hash + "\nh viewer servers:10.0.0.0/8 " + hash + "\ni agent servers:10.0.0.0/8 " + hash +
				"\nj agent:web servers:10.0.0.0/8\nk agent:web " + hash + " servers:10.0.0.0/8\nl agent:web servers:10.0.0.0/8 servers:10.0.0.0/8 " + hash +
				"\nm agent:web servers:" + strings.Repeat("10.0.0.1,", maxNetworks) + "10.0.0.1 " + hash + "\n",
			[]string{
				`tokens:1: token a: servers: "" is not a network`, `tokens:2: token b: servers: "" is not a network`,
				"tokens:3: token c: servers: 10.1.2.3/24 has bits beyond its length: write 10.1.2.0/24, or 10.1.2.3",
				`tokens:4: token d: servers: "10.0.0.0/33" is not a network`, `tokens:5: token e: servers: "s1.example" is not a network`,
				"tokens:6: token f: servers: ::ffff:10.0.0.1 is an IPv4 address in IPv6 form", "tokens:7: token g: servers: a network has no zone",
				"tokens:8: token h: only an agent has servers, not a viewer", "tokens:9: token i: an agent has pools",
				"tokens:10: 3 fields: want name, role, perhaps an agent's servers:PREFIX,PREFIX, SHA-256", `tokens:11: token k: expiry "servers:10.0.0.0/8" is not a time`,
				"tokens:12: token l: the field behind its role, or its servers, is not a SHA-256", "tokens:13: token m: 257 networks of servers: at most 256",
			},
		},
		{"a_line_too_long", strings.Repeat("x", 1<<17), []string{"tokens:1: bufio.Scanner: token too long"}},
		{"too_many", manyTokens(maxTokens + 1), []string{"tokens:10001: more than 10000 tokens"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tokens, err := parseTokens("tokens", []byte(test.text))
			if err == nil || test.want == nil {
				if err != nil || test.want != nil {
					t.Fatalf("error %v; want %q", err, test.want)
				}
				return
			}
			lines := strings.Split(err.Error(), "\n")
			if tokens != nil || len(lines) != len(test.want) {
				t.Fatalf("%d tokens, error:\n%v", len(tokens), err)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("line %d: %q, want %q", i, lines[i], want)
				}
			}
		})
	}
	t.Run("a_token_in_place_of_its_hash_is_not_shown", func(t *testing.T) {
		token, _ := NewToken()
		if _, err := parseTokens("tokens", []byte("a viewer "+token)); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("others_must_not_read_it", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for mode, good := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o660: false, 0o602: false} {
			if err := os.Chmod(file, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := readTokens(file); (err == nil) != good || !good && !strings.Contains(err.Error(), "chmod 0640") {
				t.Errorf("mode %#o: error %v", mode, err)
			}
		}
	})
}

func manyTokens(n int) string {
	var text strings.Builder
	for range n {
		_, hash := NewToken()
		text.WriteString("a viewer " + hash + "\n")
	}
	return text.String()
}

func TestNewToken(t *testing.T) {
	token, hash := NewToken()
	again, _ := NewToken()
	if token == again || !strings.HasPrefix(token, "shunt_") || len(token) < 40 {
		t.Errorf("tokens %q and %q", token, again)
	}
	now := time.Now()
	line, err := TokenLine("deploy", Operator, hash, now.Add(time.Hour), AgentTerms{})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := parseTokens("tokens", []byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tokenCaller(tokens, token, now); err != nil || !reflect.DeepEqual(c, caller{who: "token deploy", role: Operator}) {
		t.Errorf("%+v, %v", c, err)
	}
	for _, wrong := range []string{"", again, token + "x", hash} {
		if _, err := tokenCaller(tokens, wrong, now); err == nil {
			t.Errorf("%q is let in", wrong)
		}
	}
	if _, err := tokenCaller(tokens, token, now.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("after its expiry: %v", err)
	}
	if _, err := TokenLine("two words", Viewer, hash, time.Time{}, AgentTerms{}); err == nil {
		t.Error("a name of two words is taken")
	}
}

func TestRefusalsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := event.NewStream(slog.New(slog.DiscardHandler), 0)
		r := newRefusals(events)
		refuse := func(n int) uint64 {
			for range n {
				r.publish(httptest.NewRequest("GET", "/v1/status", nil), errors.New("no credentials"))
			}
			return events.Counts()[event.AccessRefused]
		}
		if n := refuse(100); n != refusalsBurst {
			t.Errorf("%d of 100 published at once, want %d", n, refusalsBurst)
		}
		time.Sleep(refusalsEvery)
		if n := refuse(100); n != refusalsBurst+1 {
			t.Errorf("%d published a second later, want one more", n)
		}
	})
}

// FuzzTokens: any tokens file is refused or becomes tokens with good values.
func FuzzTokens(f *testing.F) {
	f.Add("a viewer " + strings.Repeat("ab", 32) + " 2030-01-01T00:00:00Z\n# x\n")
	f.Add("a\x00b admin \xff\n")
	f.Add("s1 agent:web,mail servers:10.1.2.0/24,2001:db8::7 " + strings.Repeat("ab", 32) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := parseTokens("tokens", []byte(text))
		if err != nil && tokens != nil {
			t.Fatal("tokens and an error")
		}
		for _, token := range tokens {
			scoped := token.scope.agent == token.name && token.scope.pools != ""
			if token.role < Agent || token.role > Admin || scoped != (token.role == Agent) || !tokenName.MatchString(token.name) {
				t.Fatalf("%+v", token)
			}
			for _, network := range token.scope.networks {
				if !scoped || network != network.Masked() || network.Addr().Is4In6() {
					t.Fatalf("%+v", token)
				}
			}
		}
	})
}
