package decap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// Type is a kind of tunnel. The numbers are the kernel's, as realserver.TunnelType's.
type Type uint8

// The types of tunnels.
const (
	IPIP = Type(kernelDecapTypeDECAP_IPIP) // and 6in6, 4in6, 6in4: protocols 4 and 41
	GUE  = Type(kernelDecapTypeDECAP_GUE)
	GRE  = Type(kernelDecapTypeDECAP_GRE)
)

// Types are all there are.
var Types = []Type{IPIP, GUE, GRE}

// DefaultPort is gue's (IANA: Service Name and Transport Protocol Port Number Registry).
const DefaultPort = 6080

// MaxPorts is how many UDP ports may be gue's.
const MaxPorts = int(kernelDecapShapeDECAP_PORTS)

// maxPrefixes is how many prefixes of each kind there may be.
const maxPrefixes = 16384

// Config says what is taken out of its tunnel. The zero value of a field is
// documented with it.
type Config struct {
	// Types of tunnels; none: all.
	Types []Type
	// Ports are gue's; none: DefaultPort.
	Ports []uint16
	// To are the outer destinations: this host's addresses. There must be one.
	To []netip.Prefix
	// From are the outer sources, the directors; none: any.
	From []netip.Prefix
	// Virtual are the inner destinations. There must be one.
	Virtual []netip.Prefix
}

// withDefaults fills in what is not given, and sorts all, so that equal
// configurations are the same value.
func (c Config) withDefaults() Config {
	if len(c.Types) == 0 {
		c.Types = Types
	}
	if len(c.Ports) == 0 {
		c.Ports = []uint16{DefaultPort}
	}
	c.Types, c.Ports = sorted(c.Types), sorted(c.Ports)
	c.To, c.From, c.Virtual = normal(c.To), normal(c.From), normal(c.Virtual)
	return c
}

func sorted[T Type | uint16](all []T) []T {
	all = slices.Clone(all)
	slices.Sort(all)
	return slices.Compact(all)
}

// normal masks and sorts prefixes. IPv4 written in IPv6 is IPv4.
func normal(prefixes []netip.Prefix) []netip.Prefix {
	all := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		all[i] = p.Masked()
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// Validate returns an error that says why the configuration cannot be used.
func (c Config) Validate() error {
	for _, t := range c.Types {
		if !slices.Contains(Types, t) {
			return fmt.Errorf("unknown tunnel type %d", t)
		}
	}
	if slices.Contains(c.Ports, 0) {
		return errors.New("gue port 0 is reserved")
	}
	if len(c.Ports) > MaxPorts {
		return fmt.Errorf("%d gue ports: at most %d", len(c.Ports), MaxPorts)
	}
	err := errors.Join(
		validatePrefixes("outer destination", c.To), validatePrefixes("outer source", c.From),
		validatePrefixes("virtual address", c.Virtual),
	)
	if err != nil {
		return err
	}
	if len(c.Virtual) == 0 {
		return errors.New("no virtual address: nothing would be taken out of its tunnel")
	}
	if len(c.To) == 0 {
		return errors.New("no outer destination: nothing would be taken out of its tunnel")
	}
	return nil
}

func validatePrefixes(what string, prefixes []netip.Prefix) error {
	if len(prefixes) > maxPrefixes {
		return fmt.Errorf("%d prefixes of %ss: at most %d", len(prefixes), what, maxPrefixes)
	}
	for _, p := range prefixes {
		if !p.IsValid() {
			return fmt.Errorf("%s %s: not a prefix", what, p)
		}
		if p.Addr().Zone() != "" {
			return fmt.Errorf("%s %s: an address with a zone", what, p)
		}
	}
	return nil
}

// encode returns what the program is loaded with.
func (c Config) encode() kernelDecapConfig {
	k := kernelDecapConfig{Version: uint32(kernelDecapVersionDECAP_VERSION)}
	for _, t := range c.Types {
		k.Types |= 1 << t
	}
	if len(c.From) == 0 {
		k.IsFromAny = 1
	}
	for i, port := range c.Ports {
		k.Ports[i] = swap(port)
	}
	return k
}

// swap turns a port into the number that the program reads of the wire's octets, and back.
func swap(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// roles are what the trie has of a Config.
var roles = map[kernelDecapRole]func(*Config) *[]netip.Prefix{
	kernelDecapRoleDECAP_TO:      func(c *Config) *[]netip.Prefix { return &c.To },
	kernelDecapRoleDECAP_FROM:    func(c *Config) *[]netip.Prefix { return &c.From },
	kernelDecapRoleDECAP_VIRTUAL: func(c *Config) *[]netip.Prefix { return &c.Virtual },
}

// fill writes the prefixes.
func (c *Config) fill(trie *ebpf.Map) error {
	for role, of := range roles {
		for _, prefix := range *of(c) {
			if err := trie.Put(encodePrefix(role, prefix), uint32(1)); err != nil {
				return fmt.Errorf("add prefix %s: %w", prefix, err)
			}
		}
	}
	return nil
}

func encodePrefix(role kernelDecapRole, prefix netip.Prefix) kernelDecapPrefix {
	key := kernelDecapPrefix{
		Bits: uint32(kernelDecapShapeDECAP_HEAD_BITS) + uint32(prefix.Bits()), Role: uint8(role), Family: 6,
	}
	if prefix.Addr().Is4() {
		key.Family = 4
	}
	var octets [16]byte
	copy(octets[:], prefix.Addr().AsSlice())
	for i := range key.Address {
		key.Address[i] = binary.NativeEndian.Uint32(octets[i*4:])
	}
	return key
}

// decodePrefix is encodePrefix's inverse; false: no one makes such a key.
func decodePrefix(key kernelDecapPrefix) (netip.Prefix, bool) {
	var octets []byte
	for _, word := range key.Address {
		octets = binary.NativeEndian.AppendUint32(octets, word)
	}
	if key.Family == 4 {
		octets = octets[:4]
	}
	addr, _ := netip.AddrFromSlice(octets)
	prefix := netip.PrefixFrom(addr, int(key.Bits)-int(kernelDecapShapeDECAP_HEAD_BITS))
	return prefix, prefix.IsValid()
}

// readConfig is what a program was loaded with, from its maps.
func readConfig(constants, trie *ebpf.Map) (c Config, err error) {
	var k kernelDecapConfig
	if constants.ValueSize() != uint32(binary.Size(k)) || trie.KeySize() != uint32(binary.Size(kernelDecapPrefix{})) {
		return c, ErrVersion
	}
	if err := constants.Lookup(uint32(0), &k); err != nil {
		return c, fmt.Errorf("read its configuration: %w", err)
	}
	if k.Version != uint32(kernelDecapVersionDECAP_VERSION) {
		return c, ErrVersion
	}
	for _, t := range Types {
		if k.Types>>t&1 == 1 {
			c.Types = append(c.Types, t)
		}
	}
	for _, port := range k.Ports {
		if port != 0 {
			c.Ports = append(c.Ports, swap(port))
		}
	}
	var key kernelDecapPrefix
	var value uint32
	entries := trie.Iterate()
	for entries.Next(&key, &value) {
		prefix, ok := decodePrefix(key)
		of := roles[kernelDecapRole(key.Role)]
		if !ok || of == nil {
			return c, ErrVersion
		}
		list := of(&c)
		*list = append(*list, prefix)
	}
	if err := entries.Err(); err != nil {
		return c, fmt.Errorf("read its prefixes: %w", err)
	}
	return c.withDefaults(), nil
}
