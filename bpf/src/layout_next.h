/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A version to come, whose entries have another layout: nothing in them but the key is
 * where it is in entry.h. Compiled with -DLAYOUT_NEXT (bpf/generate.go, build tag
 * shunt_layout_next) and never shipped: with it, tests upgrade from the present
 * version, and so all that knows a layout is held to know it by its names.
 */
#ifndef SHUNT_LAYOUT_NEXT_H
#define SHUNT_LAYOUT_NEXT_H

enum abi_version {
	ABI_VERSION = 6000,
};

enum id_layout {
	ID_PORTS = 0,
	ID_PROTOCOL = 32,
	ID_KEY_BITS = 40,
	ID_BORN = 40,
	ID_GENERATION = 48,
};

enum recipe_layout {
	RECIPE_GENERATION = 0,
	RECIPE_BORN = 16,
	RECIPE_METHOD = 24, /* 2 bits */
	RECIPE_STATE = 26, /* 4 bits */
	RECIPE_KILLED = 30,
	RECIPE_VALIDATED = 31,
	RECIPE_COUNTED = 32,
	RECIPE_SPACED = 33, /* 2 bits */
	RECIPE_SEQUENCE = 35,
	RECIPE_LOADED = 36,
	RECIPE_PROLONGED = 37,
	RECIPE_DOUBT = 38,
	RECIPE_WIDE = 39,
	RECIPE_CONTROLLED = 40,
	RECIPE_BUSY = 41,
	RECIPE_PROVEN = 42,
	RECIPE_REPLY = 43,
	RECIPE_SERVER = 44, /* 20 bits */
	RECIPE_TOLD = RECIPE_DOUBT,
	RECIPE_FULLNAT = RECIPE_PROLONGED,
	RECIPE_BOUND = RECIPE_DOUBT,
};

#endif
