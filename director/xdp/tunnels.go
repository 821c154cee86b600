package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/realserver"
)

// tunnel is how packets are wrapped for a server. Servers that have the same share
// one, so that the MTU of the path is learned once.
type tunnel struct {
	address netip.Addr
	options realserver.TunnelOptions
	// source is the outer header's: an address, or a prefix whose host bits differ from
	// connection to connection.
	source netip.Prefix
}

// tunnelTable hands out the tunnels. A tunnel never changes while a server names it:
// another one gets another index, so that no packet sees half of two.
type tunnelTable struct {
	index map[tunnel]uint32
	at    map[uint32]tunnel
	uses  map[uint32]int // servers that name it
	freed map[uint32]time.Time
	// chains are the tunnels of a key by which a router's error names them, in the
	// order that the map has: the first is in its index, the rest follow.
	chains map[bpf.KernelTunnelKey][]uint32
	next   uint32 // the lowest index that was never used
	free   []uint32
	now    func() time.Time
}

func newTunnelTable() *tunnelTable {
	return &tunnelTable{
		index: map[tunnel]uint32{}, at: map[uint32]tunnel{}, uses: map[uint32]int{}, freed: map[uint32]time.Time{},
		chains: map[bpf.KernelTunnelKey][]uint32{},
		next:   1, // 0 is no tunnel
		now:    time.Now,
	}
}

// key is what a router's error quotes of the tunnel's packets.
func (t tunnel) key() bpf.KernelTunnelKey {
	return bpf.KernelTunnelKey{
		Address: bpf.Address(t.address), Port: bpf.Port(t.options.Port), Type: uint8(t.options.Type), Family: familyOf(t.address),
	}
}

// kernelTunnel is what the map is to hold of it, what a router tells apart.
func kernelTunnel(t tunnel, next uint32) bpf.KernelTunnel {
	return bpf.KernelTunnel{
		Address: bpf.Address(t.address), Source: bpf.Address(t.source.Masked().Addr()), Spread: spread(t.source),
		Family: familyOf(t.address), Type: uint8(t.options.Type), Checksum: uint8(t.options.Checksum), Overhead: uint8(t.options.Overhead(t.address)),
		Port: bpf.Port(t.options.Port), Next: next,
	}
}

// parseTunnel is the inverse; false of what is none.
func parseTunnel(k *bpf.KernelTunnel) (tunnel, bool) {
	if k.Family != 4 && k.Family != 6 {
		return tunnel{}, false
	}
	source := bpf.ParseAddress(k.Source, k.Family == 6)
	return tunnel{
		address: bpf.ParseAddress(k.Address, k.Family == 6),
		options: realserver.TunnelOptions{
			Type: realserver.TunnelType(k.Type), Port: bpf.Port(k.Port), Checksum: realserver.TunnelChecksum(k.Checksum),
		},
		source: netip.PrefixFrom(source, source.BitLen()-bits.OnesCount32(k.Spread)),
	}, true
}

// spread has the host bits of the prefix, 32 at most, as they lie in the last word.
func spread(p netip.Prefix) uint32 {
	host := min(p.Addr().BitLen()-p.Bits(), 32)
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, uint32(1<<host-1)))
}

// adopt takes over the tunnels that servers name; what nobody names is taken out.
func (t *tunnelTable) adopt(plane *bpf.Plane, kernel []bpf.KernelTunnel, m *model) error {
	for _, s := range m.servers {
		if s.tunnel == 0 {
			continue
		}
		tun, ok := tunnel{}, false
		if int(s.tunnel) < len(kernel) {
			tun, ok = parseTunnel(&kernel[s.tunnel])
		}
		if !ok {
			s.tunnel = 0 // it is given another as soon as its route is known
			continue
		}
		if _, known := t.at[s.tunnel]; !known {
			t.at[s.tunnel] = tun
			t.chains[tun.key()] = append(t.chains[tun.key()], s.tunnel)
			if _, known := t.index[tun]; !known {
				t.index[tun] = s.tunnel
			}
		}
		s.source = tun.source
		t.uses[s.tunnel]++
	}
	for i := range kernel {
		if kernel[i] == (bpf.KernelTunnel{}) {
			continue
		}
		t.next = max(t.next, uint32(i)+1)
	}
	for i := uint32(1); i < t.next; i++ {
		if _, known := t.at[i]; known {
			continue
		}
		if err := plane.Tunnels.Put(i, &bpf.KernelTunnel{}); err != nil {
			return fmt.Errorf("take out tunnel %d: %w", i, err)
		}
		t.free = append(t.free, i)
	}
	return t.adoptChains(plane)
}

// adoptChains makes the index that of the tunnels.
func (t *tunnelTable) adoptChains(plane *bpf.Plane) error {
	var key bpf.KernelTunnelKey
	var first uint32
	var strays []bpf.KernelTunnelKey
	all := plane.TunnelIndex.Iterate()
	for all.Next(&key, &first) {
		if len(t.chains[key]) == 0 {
			strays = append(strays, key)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read the index of tunnels: %w", err)
	}
	for _, key := range strays {
		if err := t.writeChain(plane, key); err != nil {
			return err
		}
	}
	for key := range t.chains {
		if err := t.writeChain(plane, key); err != nil {
			return err
		}
	}
	return nil
}

// acquire returns the index of the tunnel, written to the maps if it is new there.
func (t *tunnelTable) acquire(plane *bpf.Plane, tun tunnel) (uint32, error) {
	if i, ok := t.index[tun]; ok {
		if err := t.repair(plane, i); err != nil {
			return 0, err
		}
		t.uses[i]++
		delete(t.freed, i)
		return i, nil
	}
	if err := t.expire(plane); err != nil {
		return 0, err
	}
	i, err := t.unused(plane)
	if err != nil {
		return 0, err
	}
	t.index[tun], t.at[i], t.uses[i] = i, tun, 1
	t.chains[tun.key()] = append(t.chains[tun.key()], i)
	if err := t.repair(plane, i); err != nil {
		t.release(i)
		return 0, err
	}
	return i, nil
}

func (t *tunnelTable) unused(plane *bpf.Plane) (uint32, error) {
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		return i, nil
	}
	if t.next >= plane.Tunnels.MaxEntries() {
		return 0, fmt.Errorf("all %d tunnels are in use: raise limits.servers", plane.Tunnels.MaxEntries()-1)
	}
	t.next++
	return t.next - 1, nil
}

// release says that one server less names the tunnel.
func (t *tunnelTable) release(i uint32) {
	if i == 0 {
		return
	}
	if t.uses[i]--; t.uses[i] <= 0 {
		delete(t.uses, i)
		t.freed[i] = t.now()
	}
}

// expire takes out the tunnels that no packet can be following any more.
func (t *tunnelTable) expire(plane *bpf.Plane) error {
	for i, at := range t.freed {
		if t.now().Sub(at) < quarantine {
			continue
		}
		tun := t.at[i]
		key := tun.key()
		rest := slices.DeleteFunc(t.chains[key], func(j uint32) bool { return j == i })
		if t.chains[key] = rest; len(rest) == 0 {
			delete(t.chains, key)
		}
		if err := t.writeChain(plane, key); err != nil {
			return err
		}
		if err := plane.Tunnels.Put(i, &bpf.KernelTunnel{}); err != nil {
			return fmt.Errorf("take out tunnel %d: %w", i, err)
		}
		delete(t.freed, i)
		delete(t.at, i)
		if t.index[tun] == i {
			delete(t.index, tun)
		}
		t.free = append(t.free, i)
	}
	return nil
}

// isIntact says whether the maps hold the tunnel with the index, and packets' errors
// lead to it.
func (t *tunnelTable) isIntact(plane *bpf.Plane, i uint32) bool {
	if i == 0 {
		return true
	}
	key := t.at[i].key()
	for n, j := range t.chains[key] {
		if !t.holds(plane, key, n) {
			return false
		}
		if j == i {
			break
		}
	}
	var first uint32
	return plane.TunnelIndex.Lookup(key, &first) == nil && first == t.chains[key][0]
}

// holds says whether the map has the n-th tunnel of the key as it was written.
func (t *tunnelTable) holds(plane *bpf.Plane, key bpf.KernelTunnelKey, n int) bool {
	var has [1]bpf.KernelTunnel
	if bpf.ReadRange(plane.Tunnels, t.chains[key][n], has[:]) != nil {
		return false
	}
	has[0].Mtu, has[0].MtuTick = 0, 0
	return has[0] == t.wanted(key, n)
}

// wanted is what the map is to hold of the n-th tunnel of the key.
func (t *tunnelTable) wanted(key bpf.KernelTunnelKey, n int) bpf.KernelTunnel {
	chain := t.chains[key]
	var next uint32
	if n+1 < len(chain) {
		next = chain[n+1]
	}
	return kernelTunnel(t.at[chain[n]], next)
}

// repair writes the tunnel with the index again if the maps do not hold it.
func (t *tunnelTable) repair(plane *bpf.Plane, i uint32) error {
	if t.isIntact(plane, i) {
		return nil
	}
	return t.writeChain(plane, t.at[i].key())
}

// writeChain writes the tunnels of the key, the last first, and then where they begin.
// What a router has told of their paths is kept.
func (t *tunnelTable) writeChain(plane *bpf.Plane, key bpf.KernelTunnelKey) error {
	chain := t.chains[key]
	for n := len(chain) - 1; n >= 0; n-- {
		if t.holds(plane, key, n) {
			continue
		}
		k := t.wanted(key, n)
		var has [1]bpf.KernelTunnel
		if bpf.ReadRange(plane.Tunnels, chain[n], has[:]) == nil && has[0].Address == k.Address && has[0].Family == k.Family {
			k.Mtu, k.MtuTick = has[0].Mtu, has[0].MtuTick
		}
		if err := plane.Tunnels.Put(chain[n], &k); err != nil {
			return fmt.Errorf("write tunnel %d: %w", chain[n], err)
		}
	}
	if len(chain) > 0 {
		if err := plane.TunnelIndex.Put(key, chain[0]); err != nil {
			return fmt.Errorf("index tunnel %d: %w", chain[0], err)
		}
		return nil
	}
	if err := plane.TunnelIndex.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("unindex a tunnel: %w", err)
	}
	return nil
}
