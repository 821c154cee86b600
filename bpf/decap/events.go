package decap

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Event says what a counter counts (src/abi.h, enum decap_event).
type Event struct {
	Name string
	Kind string // pass, taken, drop, note or fault
	Help string
}

// Events are the counters' names in the order of the ABI; the first is unused.
var Events = [kernelDecapEventDECAP_EVENTS]Event{
	kernelDecapEventDECAP_PASS_OTHER:           {"other", "pass", "of no tunnel that is asked for"},
	kernelDecapEventDECAP_PASS_MALFORMED:       {"malformed", "pass", "outer headers too short or inconsistent"},
	kernelDecapEventDECAP_PASS_EXTENSIONS:      {"extensions", "pass", "too many IPv6 extension headers to look behind"},
	kernelDecapEventDECAP_PASS_FRAGMENT:        {"fragment", "pass", "the outer packet is a fragment: the path's MTU is too small for the tunnel"},
	kernelDecapEventDECAP_PASS_ADDRESS:         {"address", "pass", "tunnel packets to an address that is not this host's"},
	kernelDecapEventDECAP_PASS_SOURCE:          {"source", "pass", "tunnel packets from a source that is not let in"},
	kernelDecapEventDECAP_PASS_OPTIONS:         {"options", "pass", "a tunnel header with what is not understood: keys, sequence numbers, control messages, unknown flags"},
	kernelDecapEventDECAP_PASS_REMOTE_CHECKSUM: {"remote-checksum", "pass", "gue with a checksum that the receiver shall make"},
	kernelDecapEventDECAP_PASS_PROTOCOL:        {"protocol", "pass", "what is in the tunnel is not IP"},
	kernelDecapEventDECAP_PASS_INNER:           {"inner", "pass", "no IP header where the tunnel's header says that one is"},
	kernelDecapEventDECAP_PASS_NOT_VIRTUAL:     {"not-virtual", "pass", "the inner destination is not a virtual address"},

	kernelDecapEventDECAP_TAKEN_IPIP: {"ipip", "taken", "taken out of ipip"},
	kernelDecapEventDECAP_TAKEN_GUE:  {"gue", "taken", "taken out of gue"},
	kernelDecapEventDECAP_TAKEN_GRE:  {"gre", "taken", "taken out of gre"},

	kernelDecapEventDECAP_DROP_OUTER_CHECKSUM: {"outer-checksum", "drop", "the outer IPv4 header's checksum is wrong"},
	kernelDecapEventDECAP_DROP_GUE_CHECKSUM:   {"gue-checksum", "drop", "gue's UDP checksum is wrong"},
	kernelDecapEventDECAP_DROP_GRE_CHECKSUM:   {"gre-checksum", "drop", "gre's checksum is wrong"},
	kernelDecapEventDECAP_DROP_INNER_LENGTH:   {"inner-length", "drop", "the inner packet is longer than what is there, or its lengths contradict each other"},
	kernelDecapEventDECAP_DROP_ECN:            {"ecn", "drop", "congestion outside, and a sender that does not know of it (RFC 6040)"},
	kernelDecapEventDECAP_DROP_HEAD:           {"head", "drop", "the outer headers could not be taken off"},

	kernelDecapEventDECAP_NOTE_CE:  {"congestion", "note", "congestion experienced outside, noted inside (RFC 6040)"},
	kernelDecapEventDECAP_NOTE_ECN: {"odd-ecn", "note", "a pair of ECN codepoints that no tunnel should make (RFC 6040)"},

	kernelDecapEventDECAP_FAULT_MAP: {"fault-map", "fault", "a map without an element that must be there"},
}

// Count is what a counter has counted.
type Count struct {
	Event

	Packets uint64
	Bytes   uint64 // of the frames as they came
}

// readCounts reads the counters, summed over CPUs, in the order of Events and
// without the unused one.
func readCounts(counters *ebpf.Map) ([]Count, error) {
	counts := make([]Count, 0, len(Events))
	for i := 1; i < len(Events); i++ {
		var perCPU []kernelDecapCount
		if err := counters.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", Events[i].Name, err)
		}
		c := Count{Event: Events[i]}
		for _, n := range perCPU {
			c.Packets += n.Packets
			c.Bytes += n.Bytes
		}
		counts = append(counts, c)
	}
	return counts, nil
}
