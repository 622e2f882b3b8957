/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * History: every decision is added up, told or quiet, so that a full ring costs
 * detail and never a fact. Nothing here changes a verdict.
 *
 * The agent takes the sums in whole epochs: it opens the next one, waits until no
 * program is left in the old one (aegis_barrier()), and only then reads and
 * deletes it. So no sum is ever read and added to at the same time.
 */
#ifndef AEGIS_HISTORY_BPF_H
#define AEGIS_HISTORY_BPF_H

#include "decide.bpf.h"

/* What makes two programs of one path two: a file in a chroot, a process older than us. */
#define LASTING (AEGIS_ID_HOST_FS | AEGIS_ID_TRUSTED | AEGIS_ID_SEEDED | AEGIS_ID_LOST | \
		 AEGIS_ID_KTHREAD | AEGIS_ID_PATH_CUT | AEGIS_ID_UNLINKED)

static __always_inline void add_to(struct aegis_history *sum, bool reports)
{
	__u64 now = bpf_jiffies64();

	__sync_fetch_and_add(&sum->count, 1);
	if (reports)
		__sync_fetch_and_add(&sum->reports, 1);
	/* To read the clock costs as much as all else here: once a jiffy is enough. */
	if (READ_ONCE(sum->last_jiffies) != now) {
		WRITE_ONCE(sum->last_jiffies, now);
		WRITE_ONCE(sum->last_boot_ns, bpf_ktime_get_boot_ns());
	}
}

/*
 * The number of *proc*'s program, given to it now if it has none; 0: the table is
 * full. The entry comes first and then its number, so that none is used up in vain.
 */
static __noinline __u32 program_of(struct aegis_proc *proc)
{
	struct aegis_program *program = (void *)&proc->lasting;	/* too big for a stack */
	__u32 zero = 0, *number, *given = bpf_map_lookup_elem(&program_count, &zero);

	proc->lasting = proc->flags & LASTING;
	number = bpf_map_lookup_elem(&programs, program);
	if (!number) {
		bpf_map_update_elem(&programs, program, &zero, BPF_NOEXIST);
		number = bpf_map_lookup_elem(&programs, program);
	}
	if (!number || !given)
		return 0;
	if (!READ_ONCE(*number))
		__sync_val_compare_and_swap(number, 0, __sync_fetch_and_add(given, 1) + 1);
	WRITE_ONCE(proc->program, READ_ONCE(*number));
	return proc->program;
}

/* The first of its kind in this epoch. */
static __noinline int begin_sum(struct aegis_history_key *key, bool reports)
{
	struct aegis_history fresh = { .count = 1, .reports = reports }, *sum;

	fresh.first_boot_ns = fresh.last_boot_ns = bpf_ktime_get_boot_ns();
	fresh.last_jiffies = bpf_jiffies64();
	if (!bpf_map_update_elem(&history, key, &fresh, BPF_NOEXIST))
		return 0;
	sum = bpf_map_lookup_elem(&history, key);	/* another CPU was first */
	if (sum)
		add_to(sum, reports);
	else
		count(AEGIS_COUNTER_HISTORY_LOST);
	return 0;
}

/* A global function: verified once, and not for each way into it. */
__noinline int aegis_remember(struct aegis_proc *proc, struct decision *d, struct flow *flow)
{
	struct aegis_history_key key = {};
	struct aegis_history *sum;
	struct aegis_epoch *now;
	__u32 zero = 0;

	if (!proc || !d || !flow)
		return 0;
	now = bpf_map_lookup_elem(&epoch, &zero);
	if (now)
		key.epoch = READ_ONCE(now->current);
	key.program = READ_ONCE(proc->program);
	if (!key.program)
		key.program = program_of(proc);
	key.port = flow->port;
	key.direction = flow->direction;
	key.protocol = flow->protocol;
	key.verdict = d->verdict;
	key.is_socket = flow->hook == AEGIS_HOOK_SOCKET;
	__builtin_memcpy(key.addr, flow->addr, sizeof(key.addr));
	sum = bpf_map_lookup_elem(&history, &key);
	if (sum)
		add_to(sum, d->report);
	else
		begin_sum(&key, d->report);
	return 0;
}

#endif
