package doctor

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// NIC asks network cards what ethtool shows. Errors wrap unix.EOPNOTSUPP for
// what the driver does not have.
type NIC interface {
	// Driver returns the driver's name, such as veth.
	Driver(name string) (string, error)
	// Features returns what is on, by the kernel's names (ethtool -k shows some
	// by others).
	Features(name string) (map[string]bool, error)
	// Queues returns the numbers of queues (ethtool -l).
	Queues(name string) (Queues, error)
	// Hashing returns how packets are spread over queues (ethtool -x, -n).
	Hashing(name string) (Hashing, error)
}

// Queues are a card's queues. Combined ones serve both directions and are part
// of RX and TX too.
type Queues struct {
	RX, TX, Combined          int
	MaxRX, MaxTX, MaxCombined int
}

// Hashing is how a card spreads received packets over its queues. What the
// driver does not tell is empty.
type Hashing struct {
	Key         []byte
	Indirection []uint32 // queue by hash
	// Fields by flow (tcp4, udp4, tcp6, udp6), as ethtool -N writes them: s and d
	// the addresses, f and n the ports.
	Fields map[string]string
}

// card asks by ethtool's ioctl.
type card struct {
	*ethtool.Ethtool
	fd int // of our own, for what the library does not have
}

var _ NIC = (*card)(nil)

func openEthtool() (*card, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	return &card{e, fd}, nil
}

func (c *card) close() {
	c.Close()
	_ = unix.Close(c.fd)
}

func (c *card) Driver(name string) (string, error) {
	driver, err := c.DriverName(name)
	if err != nil {
		return "", fmt.Errorf("ask %s for its driver: %w", name, err)
	}
	return driver, nil
}

func (c *card) Features(name string) (map[string]bool, error) {
	features, err := c.Ethtool.Features(name)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its offloads: %w", name, err)
	}
	return features, nil
}

func (c *card) Queues(name string) (Queues, error) {
	n, err := c.GetChannels(name)
	if err != nil {
		return Queues{}, fmt.Errorf("ask %s for its queues: %w", name, err)
	}
	return Queues{
		RX: int(n.RxCount + n.CombinedCount), TX: int(n.TxCount + n.CombinedCount), Combined: int(n.CombinedCount),
		MaxRX: int(n.MaxRx + n.MaxCombined), MaxTX: int(n.MaxTx + n.MaxCombined), MaxCombined: int(n.MaxCombined),
	}, nil
}

func (c *card) Hashing(name string) (Hashing, error) {
	h := Hashing{Fields: map[string]string{}}
	for flow, number := range flows {
		fields, err := c.fields(name, number)
		if err == nil {
			h.Fields[flow] = fields
		} else if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return h, fmt.Errorf("ask %s what it hashes of %s: %w", name, flow, err)
		}
	}
	var err error
	h.Indirection, h.Key, err = c.spread(name)
	if err != nil && !(errors.Is(err, unix.EOPNOTSUPP) && len(h.Fields) > 0) {
		return h, fmt.Errorf("ask %s how it spreads packets over queues: %w", name, err)
	}
	return h, nil
}

// The flows that Hashing is asked for (kernel: include/uapi/linux/ethtool.h).
var flows = map[string]uint32{
	"tcp4": 0x01, // TCP_V4_FLOW
	"udp4": 0x02, // UDP_V4_FLOW
	"tcp6": 0x05, // TCP_V6_FLOW
	"udp6": 0x06, // UDP_V6_FLOW
}

// ethtool's letters for the fields of a hash (kernel: include/uapi/linux/ethtool.h).
var fieldLetters = []struct {
	bit    uint64
	letter string
}{
	{1 << 4, "s"}, // RXH_IP_SRC
	{1 << 5, "d"}, // RXH_IP_DST
	{1 << 6, "f"}, // RXH_L4_B_0_1
	{1 << 7, "n"}, // RXH_L4_B_2_3
}

// fields returns what of a flow's packets is hashed.
func (c *card) fields(name string, flow uint32) (string, error) {
	// struct ethtool_rxnfc; the kernel uses the start of it for this command.
	request := struct {
		command, flow uint32
		data          uint64
		_             [176]byte
	}{command: unix.ETHTOOL_GRXFH, flow: flow}
	if err := c.ask(name, unsafe.Pointer(&request)); err != nil {
		return "", err
	}
	var letters string
	for _, f := range fieldLetters {
		if request.data&f.bit != 0 {
			letters += f.letter
		}
	}
	return letters, nil
}

// rxfhHeader is the fixed part of struct ethtool_rxfh.
type rxfhHeader struct {
	command, context    uint32
	indirection, key    uint32 // how long they are
	function, transform uint8
	_                   [2]uint8
	_                   uint32
}

// maxSpread bounds what the kernel is believed about the lengths.
const maxSpread = 1 << 16

// spread returns the indirection table and the hash's key.
func (c *card) spread(name string) ([]uint32, []byte, error) {
	head := rxfhHeader{command: unix.ETHTOOL_GRSSH}
	if err := c.ask(name, unsafe.Pointer(&head)); err != nil {
		return nil, nil, err
	}
	if head.indirection > maxSpread || head.key > maxSpread {
		return nil, nil, fmt.Errorf("an indirection table of %d entries and a key of %d bytes: %w", head.indirection, head.key, unix.EMSGSIZE)
	}
	// In 32-bit words, so that the header is aligned.
	const headWords = int(unsafe.Sizeof(rxfhHeader{}) / 4)
	words := make([]uint32, headWords+int(head.indirection)+int(head.key+3)/4)
	*(*rxfhHeader)(unsafe.Pointer(&words[0])) = rxfhHeader{command: unix.ETHTOOL_GRSSH, indirection: head.indirection, key: head.key}
	if err := c.ask(name, unsafe.Pointer(&words[0])); err != nil {
		return nil, nil, err
	}
	rest := words[headWords:]
	indirection := rest[:head.indirection]
	if head.key == 0 {
		return indirection, nil, nil
	}
	key := unsafe.Slice((*byte)(unsafe.Pointer(&rest[head.indirection])), head.key)
	return indirection, key, nil
}

// ask sends one request to a card's driver.
func (c *card) ask(name string, data unsafe.Pointer) error {
	// struct ifreq with ifr_data (kernel: include/uapi/linux/if.h)
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: data}
	if len(name) >= len(request.name) {
		return fmt.Errorf("interface name %q is too long", name)
	}
	copy(request.name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&request)
	if errno != 0 {
		return errno
	}
	return nil
}
