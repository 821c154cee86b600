package scheduler

import (
	"math/bits"
	"net/netip"
)

// goldenRatio32 multiplies in the kernel's hash_32 (kernel:
// include/linux/hash.h, GOLDEN_RATIO_32).
const goldenRatio32 = 0x61C88647

// hash32 is the kernel's hash_32: the top bits of a multiplicative hash.
func hash32(v uint32, width int) uint32 { return v * goldenRatio32 >> (32 - width) }

// Fold returns the number the hashes use for an address: an IPv4 address as a
// host-order number, an IPv6 address's four words xored.
func Fold(addr netip.Addr) uint32 {
	if addr.Is4() {
		return word(addr.AsSlice())
	}
	b := addr.As16()
	return word(b[0:]) ^ word(b[4:]) ^ word(b[8:]) ^ word(b[12:])
}

// foldServer folds a server's address as the kernel does for a service of vip's
// family: it reads the same union whatever the server's family is, so that an
// IPv6 server of an IPv4 service counts with its first word only.
func foldServer(server, vip netip.Addr) uint32 {
	if vip.Is4() && server.Is6() {
		return word(server.AsSlice())
	}
	return Fold(server)
}

func word(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// HSipHash returns the kernel's hsiphash of the four bytes of v, little-endian,
// under a key of two equal words: on 64-bit machines SipHash-1-3, cut to its low
// 32 bits (kernel: lib/siphash.c, hsiphash_1u32).
func HSipHash(v uint32, key uint64) uint32 {
	v0 := 0x736f6d6570736575 ^ key
	v1 := 0x646f72616e646f6d ^ key
	v2 := 0x6c7967656e657261 ^ key
	v3 := 0x7465646279746573 ^ key
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	b := uint64(4)<<56 | uint64(v) // the length, and the only, short, block
	v3 ^= b
	round()
	v0 ^= b
	v2 ^= 0xff
	round()
	round()
	round()
	return uint32(v0 ^ v1 ^ v2 ^ v3)
}
