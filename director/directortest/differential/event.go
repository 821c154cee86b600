package differential

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Verb says what an event does.
type Verb string

// The verbs, with an event of each as text. What stands behind the equals sign
// is the answer.
const (
	Add    Verb = "add"    // add 3 weight 2 upper 5 lower 1
	Edit   Verb = "edit"   // edit 3 weight 0 upper 5 lower 1
	Remove Verb = "remove" // remove 3
	Send   Verb = "send"   // send 257:1024 v0 SA = 3
	Reply  Verb = "reply"  // reply 257:1024 v0 SA
	Wait   Verb = "wait"   // wait 12s
	Count  Verb = "count"  // count = 3:1/0/0 0:2/1/0
)

// The answers to Send, beside the number of the server that got the packet.
const (
	Refused = "refused" // port unreachable: no server
	Nothing = "nothing" // it went to no server: dropped, or left to the stack
)

// Event is one line of a script.
type Event struct {
	Verb                 Verb
	Server               int // Add, Edit, Remove
	Weight, Upper, Lower uint32
	Client               int // Send, Reply
	Port                 uint16
	Virtual              int
	Flags                string // of TCP; "-" of UDP
	Wait                 time.Duration
	// Answer is what came of it: a server's number, Refused or Nothing; the
	// active and inactive connections and templates of each server, in the order
	// of the kernel's list; empty if none was asked for or none is known.
	Answer string
}

// String returns the event as in files.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", e.Verb)
	switch e.Verb {
	case Add, Edit:
		fmt.Fprintf(&b, " %d weight %d", e.Server, e.Weight)
		if e.Upper != 0 {
			fmt.Fprintf(&b, " upper %d lower %d", e.Upper, e.Lower)
		}
	case Remove:
		fmt.Fprintf(&b, " %d", e.Server)
	case Send, Reply:
		fmt.Fprintf(&b, " %d:%d v%d %s", e.Client, e.Port, e.Virtual, e.Flags)
	case Wait:
		fmt.Fprintf(&b, " %s", e.Wait)
	}
	if e.Answer != "" {
		fmt.Fprintf(&b, " = %s", e.Answer)
	}
	return b.String()
}

// MarshalText is String.
func (e Event) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads what String prints.
func (e *Event) UnmarshalText(text []byte) error {
	*e = Event{}
	line, answer, _ := strings.Cut(string(text), " = ")
	e.Answer = answer
	words := strings.Fields(line)
	if len(words) == 0 {
		return fmt.Errorf("event %q: no verb", text)
	}
	e.Verb = Verb(words[0])
	if err := e.parse(words[1:]); err != nil {
		return fmt.Errorf("event %q: %w", text, err)
	}
	if again := e.String(); again != string(text) {
		return fmt.Errorf("event %q: understood as %q", text, again)
	}
	return nil
}

func (e *Event) parse(words []string) error {
	switch e.Verb {
	case Add, Edit, Remove:
		return e.parseServer(words)
	case Send, Reply:
		if len(words) != 3 {
			return fmt.Errorf("%d words behind the verb, want client, virtual address and flags", len(words))
		}
		e.Flags = words[2]
		_, err := fmt.Sscanf(words[0]+" "+words[1], "%d:%d v%d", &e.Client, &e.Port, &e.Virtual)
		return err
	case Wait:
		d, err := time.ParseDuration(strings.Join(words, ""))
		e.Wait = d
		return err
	case Count:
		return nil
	default:
		return fmt.Errorf("unknown verb %q", e.Verb)
	}
}

func (e *Event) parseServer(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("no server")
	}
	n, err := strconv.Atoi(words[0])
	if err != nil {
		return err
	}
	e.Server = n
	fields := map[string]*uint32{"weight": &e.Weight, "upper": &e.Upper, "lower": &e.Lower}
	for words = words[1:]; len(words) > 1; words = words[2:] {
		field, known := fields[words[0]]
		if !known {
			return fmt.Errorf("unknown word %q", words[0])
		}
		n, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil {
			return err
		}
		*field = uint32(n)
	}
	return nil
}
