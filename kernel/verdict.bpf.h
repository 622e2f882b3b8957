/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a hook to a verdict: whose doing it is, what decide() says of it, and
 * that it is counted and told.
 */
#ifndef AEGIS_VERDICT_BPF_H
#define AEGIS_VERDICT_BPF_H

#include "history.bpf.h"
#include "report.bpf.h"

/*
 * A policy on trial has a deadline. From then on the one before it, whose slot is left alone that
 * long, is in force again: nobody has to live for that.
 */
static __always_inline struct aegis_config *current_config(void)
{
	__u32 zero = 0, *generation = bpf_map_lookup_elem(&active, &zero), slot;
	struct aegis_config *config;
	__u64 expires;

	slot = generation ? *generation & 1 : 0;
	config = bpf_map_lookup_elem(&configs, &slot);
	if (!config)
		return NULL;
	expires = READ_ONCE(config->expires_boot_ns);
	if (!expires || bpf_ktime_get_boot_ns() < expires)
		return config;
	slot ^= 1;
	return bpf_map_lookup_elem(&configs, &slot);
}

/* A rule with user or unit outranks the one by program alone if its number is higher. */
static __always_inline __u64
with_conditions(__u64 class_, struct aegis_proc *proc, struct aegis_config *config,
		__u32 uid, __u32 unit)
{
	__u16 app = classify_connecting(proc, config, uid, unit);

	return app > (__u16)class_ ? (class_ & ~0xffffULL) | app : class_;
}

/* tgid 0 has an entry made by the agent. It stands for what was not recorded and claims nothing. */
static __always_inline struct aegis_proc *nobody(void)
{
	__u32 zero = 0;

	count(AEGIS_COUNTER_IDENTITY_MISSING);
	return bpf_map_lookup_elem(&procs, &zero);
}

static __always_inline struct aegis_proc *current_proc(void)
{
	/* Typed: plain loads instead of two helper calls, on every connect. */
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid;
	struct aegis_proc *proc = bpf_map_lookup_elem(&procs, &tgid);

	if (proc && proc->start_boot_ns == task->group_leader->start_boottime &&
	    proc->exec_id == task->self_exec_id)
		return proc;
	return nobody();
}

/* *owner*: whose user and unit count; NULL: the caller's. */
static __always_inline __u64
class_of(struct aegis_proc *proc, struct aegis_owner *owner, struct aegis_config *config)
{
	__u64 class_ = READ_ONCE(proc->class_);
	__u32 uid, unit;

	if (class_ >> 32 != config->generation) {
		class_ = classify(proc, config);
		WRITE_ONCE(proc->class_, class_);
	}
	if (CLASS_FLAG(class_, AEGIS_CLASS_CONDITIONAL)) {
		uid = owner ? owner->uid : current_uid();
		unit = owner ? id_of(&units, &owner->unit) : aegis_current_unit();
		class_ = with_conditions(class_, proc, config, uid, unit);
	}
	return class_;
}

/* What must be there was not: a decision like any other, and a refusal. */
static __always_inline int broken(void)
{
	count(AEGIS_COUNTER_DECIDED);
	count(AEGIS_COUNTER_BROKEN);
	count(AEGIS_COUNTER_BLOCKED);
	count(AEGIS_COUNTER_LOST);
	count(AEGIS_COUNTER_HISTORY_LOST);
	return AEGIS_DENY;
}

/* MPTCP is TCP on the wire. */
static __always_inline __u16 protocol_of(__u32 protocol)
{
	return protocol == AEGIS_PROTOCOL_MPTCP ? AEGIS_PROTOCOL_TCP : protocol;
}

/* Every decision is one of these three, and one of emitted, suppressed, lost, quiet. */
static __always_inline void
count_question(struct aegis_proc *proc, struct decision *d, struct flow *flow, __u64 asked)
{
	/* Each atomic add costs as much as a hash table's search: most decisions make one. */
	if (d->verdict == AEGIS_VERDICT_ALLOWED && !d->report) {
		count(AEGIS_COUNTER_PLAIN);
	} else {
		count(AEGIS_COUNTER_DECIDED);
		count(d->verdict == AEGIS_VERDICT_BLOCKED ? AEGIS_COUNTER_BLOCKED :
		      d->verdict == AEGIS_VERDICT_ALLOWED ? AEGIS_COUNTER_ALLOWED :
		      AEGIS_COUNTER_WOULD_BLOCK);
		if (!d->report)
			count(AEGIS_COUNTER_QUIET);
	}
	if (!READ_ONCE(proc->program))
		number_program(proc);
	aegis_remember(proc, d, flow, asked);
}

static __always_inline void
count_verdict(struct aegis_proc *proc, struct decision *d, struct flow *flow)
{
	count_question(proc, d, flow, 0);
}

#endif
