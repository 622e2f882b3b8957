/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Killing the process whose connection was just refused. Here, before the call
 * returns, where the kernel lets a cgroup program send a signal; else by the
 * tracing object a moment later (tracing.bpf.c); else by the agent.
 */
#ifndef AEGIS_KILL_BPF_H
#define AEGIS_KILL_BPF_H

#include "decide.bpf.h"

#define BUDGET_NS 60000000000ULL

/* Set before the load, so that the verifier drops what this kernel does not have. */
const volatile struct aegis_settings settings SEC(".rodata.settings");

/* The agent, and what it descends from: listed by the agent, who also knows why. */
static __always_inline bool is_spared(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid;
	struct aegis_spared *known = bpf_map_lookup_elem(&spared, &tgid);

	return known && known->start_boot_ns == task->group_leader->start_boottime;
}

/*
 * One kill more in this minute, if it is within the budget: not everything may
 * die of a bad rule, also while nobody reads the events. The agent counts ours too.
 */
static __always_inline bool take_from_budget(const struct aegis_config *config, __u64 now)
{
	__u32 zero = 0;
	struct aegis_budget *spent = bpf_map_lookup_elem(&budget, &zero);
	__u64 begun;

	if (!spent)
		return false;
	begun = READ_ONCE(spent->begun_boot_ns);
	if (now - begun >= BUDGET_NS &&
	    __sync_val_compare_and_swap(&spent->begun_boot_ns, begun, now) == begun)
		WRITE_ONCE(spent->kills, 0);
	if (READ_ONCE(spent->kills) >= config->kill_budget)
		return false;
	return __sync_fetch_and_add(&spent->kills, 1) < config->kill_budget;
}

/*
 * How the current process is killed. The helper itself refuses init, kernel
 * threads and what is exiting: the agent then says so.
 */
static __always_inline enum aegis_kill
kill_current(struct aegis_proc *proc, const struct aegis_config *config, const struct decision *d,
	     __u64 now)
{
	__u32 zero = 0;
	struct aegis_host *host_ = bpf_map_lookup_elem(&host, &zero);

	if ((d->actions & AEGIS_ACTION_AGENT_KILLS) || is_spared())
		return AEGIS_KILL_AGENT;
	/* The entry of tgid 0 stands for many processes: it is never marked. */
	if (!host_ || (!settings.can_signal &&
		       (host_->kill != AEGIS_KILL_TRACING || !proc->start_boot_ns)))
		return AEGIS_KILL_AGENT;
	if (!take_from_budget(config, now))
		return AEGIS_KILL_AGENT;
	if (settings.can_signal)
		return bpf_send_signal(SIGKILL) ? AEGIS_KILL_AGENT : AEGIS_KILL_HOOK;
	WRITE_ONCE(proc->doomed, 1);
	return AEGIS_KILL_TRACING;
}

#endif
