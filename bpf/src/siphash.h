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

/* SipHash-1-3 with both key words the same: begin, then each word of the message, then the end. */
static __always_inline void sip_begin(__u64 v[4], __u64 key)
{
	v[0] = 0x736f6d6570736575ULL ^ key;
	v[1] = 0x646f72616e646f6dULL ^ key;
	v[2] = 0x6c7967656e657261ULL ^ key;
	v[3] = 0x7465646279746573ULL ^ key;
}

static __always_inline void sip_word(__u64 v[4], __u64 word)
{
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
}

static __always_inline __u64 sip_end(__u64 v[4])
{
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static __always_inline __u32 hsiphash_1u32(__u32 word, __u64 key)
{
	__u64 v[4];

	sip_begin(v, key);
	sip_word(v, 4ULL << 56 | word); /* the length in the top byte */
	return sip_end(v);
}

#endif
