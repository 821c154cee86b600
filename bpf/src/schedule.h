/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Schedulers: which server a new connection gets, exactly as the kernel's IPVS
 * chooses. The one place that names them all: one more algorithm is one more
 * header in schedulers/, which see, and its line in each of the two lists here.
 */
#ifndef SHUNT_SCHEDULE_H
#define SHUNT_SCHEDULE_H

#include "schedulers/greatest.h"
#include "schedulers/hash.h"
#include "schedulers/least.h"
#include "schedulers/locality.h"
#include "schedulers/rr.h"
#include "schedulers/twos.h"
#include "schedulers/wrr.h"

/* Index of the server for a new connection; 0: none is available. Global: verified once. */
__noinline __u32 pick(struct pick_request *r, struct service *service)
{
	__u32 scheduler;

	if (!r || !service)
		return 0;
	read_schedule(r, service);
	scheduler = r->schedule.scheduler;
	/* rr and wrr go on; the others would name the same server again. */
	if (r->attempt && scheduler != SCHEDULER_RR && scheduler != SCHEDULER_WRR)
		return pick_other(r);
	switch (scheduler) {
	case SCHEDULER_RR:
		return pick_rr(r, service);
	case SCHEDULER_WRR:
		return pick_wrr(r, service);
	case SCHEDULER_SH:
		return pick_sh(r);
	case SCHEDULER_MH:
		return pick_mh(r);
	case SCHEDULER_LC:
		return pick_lc(r);
	case SCHEDULER_WLC:
		return pick_wlc(r);
	case SCHEDULER_SED:
		return pick_sed(r);
	case SCHEDULER_NQ:
		return pick_nq(r);
	case SCHEDULER_FO:
		return pick_fo(r);
	case SCHEDULER_OVF:
		return pick_ovf(r);
	case SCHEDULER_TWOS:
		return pick_twos(r);
	case SCHEDULER_DH:
		return pick_dh(r);
	case SCHEDULER_LBLC:
		return pick_lblc(r);
	case SCHEDULER_LBLCR:
		return pick_lblcr(r);
	default:
		return 0;
	}
}

#endif
