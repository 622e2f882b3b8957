/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Proof that an optional program runs: an LSM program, for one, loads and
 * attaches where the BPF LSM is not active, and then never runs. The agent
 * enters its own tgid, does something harmless and looks at the count.
 */
#ifndef AEGIS_SELFTEST_BPF_H
#define AEGIS_SELFTEST_BPF_H

#include "maps.bpf.h"

static __always_inline void show_running(enum aegis_optional which)
{
	__u32 index = which;
	struct aegis_self_test *test = bpf_map_lookup_elem(&self_tests, &index);

	if (test && test->tgid == bpf_get_current_pid_tgid() >> 32)
		__sync_fetch_and_add(&test->runs, 1);
}

#endif
