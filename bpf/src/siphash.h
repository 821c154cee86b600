/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * hsiphash of one 32-bit word as a 64-bit kernel computes it: SipHash-1-3 with
 * both key words the same, cut to 32 bits (kernel: lib/siphash.c,
 * hsiphash_1u32; J.-P. Aumasson and D. J. Bernstein, "SipHash", 2012).
 */
#ifndef SHUNT_SIPHASH_H
#define SHUNT_SIPHASH_H

#include <linux/types.h>

static __always_inline __u64 rotate(__u64 word, int bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void sip_round(__u64 v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static __always_inline __u32 hsiphash_1u32(__u32 word, __u64 key)
{
	const __u64 last = 4ULL << 56 | word; /* the length in the top byte */
	__u64 v[4] = {
		0x736f6d6570736575ULL ^ key,
		0x646f72616e646f6dULL ^ key,
		0x6c7967656e657261ULL ^ key,
		0x7465646279746573ULL ^ key,
	};

	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
