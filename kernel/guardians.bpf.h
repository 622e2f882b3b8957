/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who becomes Aegis, and who no longer is: see guard.bpf.h.
 */
#ifndef AEGIS_GUARDIANS_BPF_H
#define AEGIS_GUARDIANS_BPF_H

#include "guard.bpf.h"

static const char INIT[] = "init.scope", SYSTEM[] = "system.slice";
static const char AGENT_UNIT[] = "aegis.service", LOAD_UNIT[] = "aegis-load.service";
static const char UNLOAD_UNIT[] = "aegis-unload.service";

static __always_inline bool is_named(struct cgroup *cgroup, const char *name)
{
	char text[24] = {};

	bpf_probe_read_kernel_str(text, sizeof(text), BPF_CORE_READ(cgroup, kn, name));
	return !bpf_strncmp(text, sizeof(text), name);
}

static __always_inline struct cgroup *parent_of(struct cgroup *cgroup)
{
	struct cgroup_subsys_state *parent = BPF_CORE_READ(cgroup, self.parent);

	return parent ? BPF_CORE_READ(parent, cgroup) : NULL;
}

enum place { ELSEWHERE, INIT_SCOPE, OUR_UNIT };

static __always_inline enum place place_of(struct task_struct *task)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	struct cgroup *parent = parent_of(cgroup), *above;

	if (!parent)
		return ELSEWHERE;
	above = parent_of(parent);
	if (!above)
		return is_named(cgroup, INIT) ? INIT_SCOPE : ELSEWHERE;
	if (parent_of(above) || !is_named(parent, SYSTEM))
		return ELSEWHERE;
	return is_named(cgroup, AGENT_UNIT) || is_named(cgroup, LOAD_UNIT) ||
	       is_named(cgroup, UNLOAD_UNIT) ? OUR_UNIT : ELSEWHERE;
}

/* The first is who called fork(), whatever CLONE_PARENT makes of it. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(aegis_guard_fork, struct task_struct *parent, struct task_struct *child)
{
	struct aegis_guardian born = { .start_boot_ns = child->start_boottime };
	struct aegis_guardian *known;
	__u32 tgid = child->tgid;

	if (tgid == parent->tgid)
		return 0;
	if (parent->tgid == 1) {
		born.kind = AEGIS_GUARDIAN_OF_INIT;
	} else {
		known = guardian_task(parent);
		if (!known || known->kind < AEGIS_GUARDIAN_OF_AEGIS)
			return 0;
		born.kind = known->kind == AEGIS_GUARDIAN_KEEPER ? AEGIS_GUARDIAN_OF_KEEPER :
			    AEGIS_GUARDIAN_OF_AEGIS;
	}
	bpf_map_update_elem(&guardians, &tgid, &born, BPF_ANY);
	return 0;
}

/*
 * systemd-executor, which newer ones execute first, may do so in init's own cgroup; wherever else
 * a child of PID 1 executes anything, it has been told what it is.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(aegis_guard_exec, struct task_struct *task)
{
	struct aegis_guardian *known = guardian_task(task);
	struct aegis_guard *row = guard_row();
	__u32 tgid = task->tgid;
	enum place place;

	if (!known || !row || known->kind >= AEGIS_GUARDIAN_KEEPER)
		return 0;
	place = known->kind == AEGIS_GUARDIAN_OF_KEEPER ? OUR_UNIT :
		known->kind == AEGIS_GUARDIAN_OF_INIT ? place_of(task) : ELSEWHERE;
	/* Who is traced does what another process wants. */
	if (place == OUR_UNIT && !((struct task_struct___guard *)task)->ptrace) {
		known->kind = AEGIS_GUARDIAN_AEGIS;
		__sync_fetch_and_add(&row->alive, 1);
	} else if (place != INIT_SCOPE) {
		bpf_map_delete_elem(&guardians, &tgid);
	}
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(aegis_guard_exit, struct task_struct *task)
{
	struct aegis_guardian *known = guardian_task(task);
	struct aegis_guard *row = guard_row();
	__u32 tgid = task->tgid, kind;

	if (!known || !row || task->signal->live.counter)
		return 0;
	/* Two threads may come here last: what counts is who changes the table. */
	kind = known->kind;
	if (kind == AEGIS_GUARDIAN_KEEPER) {
		/* prctl(PR_SET_PDEATHSIG) of its agent is sent by it, after this. */
		if (__sync_val_compare_and_swap(&known->kind, kind, AEGIS_GUARDIAN_GONE) == kind)
			__sync_fetch_and_add(&row->alive, -1);
	} else if (kind != AEGIS_GUARDIAN_GONE && !bpf_map_delete_elem(&guardians, &tgid) &&
		   kind == AEGIS_GUARDIAN_AEGIS) {
		__sync_fetch_and_add(&row->alive, -1);
	}
	return 0;
}

#endif
