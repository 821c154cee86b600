/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The only clock: jiffies, a load of about one nanosecond, cut to 32-bit ticks. */
#ifndef SHUNT_CLOCK_H
#define SHUNT_CLOCK_H

#include "maps.h"

static __always_inline __u32 now_tick(void)
{
	return bpf_jiffies64() >> tick_shift;
}

#endif
