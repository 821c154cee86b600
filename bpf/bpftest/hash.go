package bpftest

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

const (
	sourceHashSlots      = 256
	destinationHashSlots = 256
	maglevSlots          = 4093
)

// sourceHash is sh's table, of server indices: each server in turn takes as many
// buckets as its weight, at least one (kernel: ip_vs_sh.c, ip_vs_sh_reassign).
func sourceHash(servers []*Server) []uint32 {
	var table []uint32
	for len(servers) > 0 && len(table) < sourceHashSlots {
		for _, s := range servers {
			for range max(1, s.offered()) {
				table = append(table, s.Index)
			}
		}
	}
	return append(table, make([]uint32, sourceHashSlots)...)[:sourceHashSlots]
}

// destinationHash is dh's table, of server indices: each server in turn takes a
// bucket (kernel: ip_vs_dh.c, ip_vs_dh_reassign).
func destinationHash(servers []*Server) []uint32 {
	table := make([]uint32, destinationHashSlots)
	for i := range table {
		if len(servers) > 0 {
			table[i] = servers[i%len(servers)].Index
		}
	}
	return table
}

// maglev is mh's table, of server indices (kernel: ip_vs_mh.c, ip_vs_mh_populate).
func maglev(s *Service) []uint32 {
	table := make([]uint32, maglevSlots)
	var weights []uint32
	for _, server := range s.Servers {
		weights = append(weights, server.lastWeight)
	}
	common := divisor(weights)
	var greatest uint32
	for _, w := range weights {
		greatest = max(greatest, w/common)
	}
	if greatest == 0 {
		return table
	}
	shift := max(0, bits.Len32(greatest)-12/2)
	next := make([]uint32, len(s.Servers))
	for i, server := range s.Servers {
		next[i] = sipHash(foldedPort(server.Address), 2654435761) % maglevSlots
	}
	for left := maglevSlots; ; {
		for i, server := range s.Servers {
			turns := weights[i] / common
			if turns > 0 {
				turns = max(1, turns>>shift)
			}
			skip := sipHash(foldedPort(server.Address), 2654446892)%(maglevSlots-1) + 1
			for range turns {
				for table[next[i]] != 0 {
					next[i] = (next[i] + skip) % maglevSlots
				}
				table[next[i]] = server.Index
				if left--; left == 0 {
					return table
				}
			}
		}
	}
}

// foldedPort is the number the kernel hashes for a server: its address's words
// xor-ed, plus its port.
func foldedPort(a netip.AddrPort) uint32 {
	var fold uint32
	for b := a.Addr().AsSlice(); len(b) > 0; b = b[4:] {
		fold ^= binary.BigEndian.Uint32(b)
	}
	return fold + uint32(a.Port())
}

// sipHash is SipHash-1-3 of four octets under a key of two equal words, cut to 32
// bits (kernel: lib/siphash.c, hsiphash_1u32).
func sipHash(word uint32, key uint64) uint32 {
	v := [4]uint64{
		0x736f6d6570736575 ^ key, 0x646f72616e646f6d ^ key, 0x6c7967656e657261 ^ key, 0x7465646279746573 ^ key,
	}
	round := func() {
		v[0] += v[1]
		v[2] += v[3]
		v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
		v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
		v[0] = bits.RotateLeft64(v[0], 32)
		v[2] += v[1]
		v[0] += v[3]
		v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
		v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
		v[2] = bits.RotateLeft64(v[2], 32)
	}
	block := 4<<56 | uint64(word)
	v[3] ^= block
	round()
	v[0] ^= block
	v[2] ^= 0xff
	for range 3 {
		round()
	}
	return uint32(v[0] ^ v[1] ^ v[2] ^ v[3])
}
