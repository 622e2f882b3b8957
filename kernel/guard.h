/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tamper_guard: what guard.bpf.c and the agent share; a part of aegis.h, which says how to write
 * here. Its maps are made anew by each agent, so this is no part of what aegis_abi() names.
 */
#ifndef AEGIS_GUARD_H
#define AEGIS_GUARD_H

enum aegis_guard_limit {
	AEGIS_GUARDED_MAX = 4096,	/* things that are guarded */
	AEGIS_GUARDIANS_MAX = 4096,	/* most of them children of init, until they execute */
	AEGIS_REFUSALS_BYTES = 65536,	/* the ring of what is told */
};

/* What is guarded; the number's meaning is the kernel's. */
enum aegis_guarded_kind {
	AEGIS_GUARDED_MAP = 0,		/* by id */
	AEGIS_GUARDED_LINK = 1,
	AEGIS_GUARDED_PROGRAM = 2,
	AEGIS_GUARDED_PIN = 3,		/* by inode in our bpffs; how: 1 others may make things in it */
	AEGIS_GUARDED_MOUNT = 4,	/* by mount id; how: 1 it is above our bpffs, 2 it is ours */
	AEGIS_GUARDED_CGROUP = 5,	/* by cgroup id; how: 1 the agent is below it, 2 in it */
};

struct aegis_guarded {
	__u64 number;
	__u32 kind;			/* enum aegis_guarded_kind */
	__u32 pad;
};

/* Who a process is to the guard. KEEPER and AEGIS keep it up. */
enum aegis_guardian_kind {
	AEGIS_GUARDIAN_OF_INIT = 1,	/* forked by PID 1, has not executed what it is to be */
	AEGIS_GUARDIAN_OF_KEEPER = 2,	/* forked by who started the agent, has not executed yet */
	AEGIS_GUARDIAN_OF_AEGIS = 3,	/* forked by Aegis: it is Aegis until it executes */
	AEGIS_GUARDIAN_KEEPER = 4,	/* started the agent, and is not PID 1 */
	AEGIS_GUARDIAN_AEGIS = 5,
	AEGIS_GUARDIAN_GONE = 6,	/* a keeper that has ended: its last signal may come yet */
};

struct aegis_guardian {			/* key: tgid */
	__u64 start_boot_ns;
	__u32 kind;			/* enum aegis_guardian_kind */
	__u32 pad;
};

/* What was tried; also the indices of the counts. */
enum aegis_refused {
	AEGIS_REFUSED_MAP = 0,
	AEGIS_REFUSED_LINK = 1,
	AEGIS_REFUSED_PROGRAM = 2,
	AEGIS_REFUSED_PIN = 3,
	AEGIS_REFUSED_MOUNT = 4,
	AEGIS_REFUSED_SIGNAL = 5,
	AEGIS_REFUSED_TRACE = 6,
	AEGIS_REFUSED_LIMIT = 7,
	AEGIS_REFUSED_CGROUP = 8,
	AEGIS_REFUSED_MAX = 9,
};

struct aegis_refused_count {
	__u64 count;
};

/* The one row of `guard`. */
struct aegis_guard {
	__u32 device;			/* our bpffs: major << 20 | minor */
	__u32 by_init;			/* PID 1 starts the agent again, whatever becomes of it */
	__u32 alive;			/* keepers and Aegis' processes that have not ended */
	__u32 tester;			/* tgid of the agent that tests whether this runs, */
	__u32 runs;			/* and how often it did */
	__u32 lost;			/* refusals that were counted only: the ring was full */
};

struct aegis_refusal {
	__u64 boot_ns;
	__u64 number;			/* of the object; the signal; the resource */
	__u32 tgid;
	__u32 uid;
	__u32 what;			/* enum aegis_refused */
	__u32 pad;
	char comm[16];
	struct aegis_text path;		/* of the program, as taken at exec; empty: not known */
};

#endif
