/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Proof that what should decide does. A child of the agent, marked in its entry of `procs`, is
 * refused whatever the policy and told of under a hook of its own: from the hook through decide()
 * and the tables in force into the ring. Not a decision about anybody: counted apart, and in no
 * history.
 */
#ifndef AEGIS_CANARY_BPF_H
#define AEGIS_CANARY_BPF_H

#include "verdict.bpf.h"

/* *class_*, *identity*: its own, as for aegis_decide(). */
__noinline int aegis_canary(struct aegis_config *config, __u64 class_, __u32 identity)
{
	struct flow flow = {
		.addr = { 0, 0, bpf_htonl(0xffff), bpf_htonl(0x7f000001) },
		.port = 1,
		.protocol = AEGIS_PROTOCOL_UDP,
	};
	struct task_struct *task = (void *)bpf_get_current_task();
	struct aegis_event *event;
	struct decision d = {};

	if (!config)
		return 0;
	if (!aegis_decide(&d, config, class_, identity, &flow))
		return 0;		/* refused, but not told: no proof */
	count(AEGIS_COUNTER_SELF_TEST);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	__builtin_memset(event, 0, sizeof(*event));
	event->boot_ns = bpf_ktime_get_boot_ns();
	event->generation = config->generation;
	event->hook = AEGIS_HOOK_SELF_TEST;
	event->owner.tgid = BPF_CORE_READ(task, tgid);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
