/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What not every kernel lets run, and who kills where it does not; a part of
 * aegis.h, which says how to write here.
 */
#ifndef AEGIS_OPTIONAL_H
#define AEGIS_OPTIONAL_H

/* Who kills the process of an event. */
enum aegis_kill {
	AEGIS_KILL_NONE = 0,
	AEGIS_KILL_AGENT = 1,		/* asked of the agent */
	AEGIS_KILL_HOOK = 2,		/* done: the signal is sent */
	AEGIS_KILL_TRACING = 3,		/* marked: tracing.bpf.c sends it before the call returns */
};

/* Programs that not every kernel lets run; also the indices of self_tests. */
enum aegis_optional {
	AEGIS_OPTIONAL_KILL_MARKED = 0,
	AEGIS_OPTIONAL_SOCKET_CREATE = 1,
	AEGIS_OPTIONAL_FILE_RECEIVE = 2,
	AEGIS_OPTIONAL_MAX = 3,
};

/* Constants of a loaded object: what this kernel has, found by probing. */
struct aegis_settings {
	__u8 can_signal;		/* cgroup programs may call bpf_send_signal() */
	__u8 pad[7];
};

/* A process no kill of ours may hit; key: tgid. */
struct aegis_spared {
	__u64 start_boot_ns;
};

struct aegis_self_test {
	__u32 tgid;			/* of the agent that tests */
	__u32 runs;			/* of the program, in that process */
};

#endif
