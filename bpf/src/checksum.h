/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Internet checksums, RFC 1624 eqn. 3. Sums are of 16-bit words as loaded; the
 * one's complement sum does not depend on the byte order (RFC 1071 §2 (B)).
 */
#ifndef SHUNT_CHECKSUM_H
#define SHUNT_CHECKSUM_H

#include <linux/types.h>

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return sum;
}

/* As fold, of a sum of 32-bit words. */
static __always_inline __u16 fold_words(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return fold((sum & 0xffffffff) + (sum >> 32));
}

/* The sum that one word replaced by another adds. */
static __always_inline __u32 word_delta(__u16 from, __u16 to)
{
	return (__u32)(__u16)~from + to;
}

/* The sum of an address's words. */
static __always_inline __u32 address_sum(const __u32 *address)
{
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (__u16)address[i] + (address[i] >> 16);
	return sum;
}

/* The checksum after the words it covers grew by the one's complement sum delta. */
static __always_inline __u16 adjust_checksum(__u16 checksum, __u32 delta)
{
	return ~fold((__u16)~checksum + delta);
}

#endif
