/* SPDX-License-Identifier: GPL-2.0-only */
/* What exec and fork leave in `procs`: who a process is from then on. */
#ifndef AEGIS_LINEAGE_BPF_H
#define AEGIS_LINEAGE_BPF_H

#include "arguments.bpf.h"
#include "asker.bpf.h"
#include "existing.bpf.h"

/*
 * Where the kernel may be preempted in a tracepoint (measured on 7.3, "full (lazy)": 21 of 2,400
 * execs by eight shells on two CPUs), an exec during another one's program on that CPU does not
 * run it: bpf_trace_run() takes that for a recursion. So another program looks whether the first
 * was missed. What both missed is seen by exec_id, claims nothing and is counted: current_proc().
 */
static __always_inline bool is_recorded(struct aegis_proc *proc, struct task_struct *task)
{
	/* Seeded in the midst of its exec it has the right exec_id, and less than is known now. */
	return proc && !(proc->flags & AEGIS_ID_SEEDED) && proc->start_boot_ns == start_of(task) &&
	       proc->exec_id == BPF_CORE_READ(task, self_exec_id);
}

static __always_inline int record_exec(struct task_struct *task, struct linux_binprm *bprm)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	/* In place: nobody else reads it, since exec ended all other threads. */
	struct aegis_proc *proc = bpf_map_lookup_elem(&procs, &tgid);
	struct aegis_config *config = current_config();

	if (is_recorded(proc, task))
		return 0;
	forget_askers();
	if (!proc)
		proc = new_proc(tgid);
	if (!proc || !config)
		return 0;
	fill_arguments(proc, BPF_CORE_READ(task, mm), bprm);
	check_argv0(proc, bprm);
	fill_file(proc, BPF_CORE_READ(bprm, file), task);
	proc->start_boot_ns = start_of(task);
	proc->exec_boot_ns = bpf_ktime_get_boot_ns();
	proc->kill_boot_ns = 0;
	proc->doomed = 0;
	WRITE_ONCE(proc->class_, classify(proc, config));
	proc->exec_id = BPF_CORE_READ(task, self_exec_id);	/* last: now it is recorded */
	take_sockets(proc, task);
	return 0;
}

static __always_inline int record_fork(struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_tgid = BPF_CORE_READ(parent, tgid), tgid = BPF_CORE_READ(child, tgid);
	struct aegis_proc *proc;

	if (tgid == parent_tgid)	/* a thread */
		return 0;
	proc = bpf_map_lookup_elem(&procs, &tgid);
	if (proc && proc->start_boot_ns == start_of(child))	/* by the other program */
		return 0;
	proc = bpf_map_lookup_elem(&procs, &parent_tgid);
	if (!proc) {			/* a parent older than us, not seeded yet */
		proc = new_proc(tgid);
		if (proc) {
			fill_live(proc, child);
			proc->flags |= AEGIS_ID_CMDLINE_LOST;
		}
		return 0;
	}
	/* The child does not run yet: nobody sees the parent's start time in it. */
	if (bpf_map_update_elem(&procs, &tgid, proc, BPF_ANY)) {
		bpf_map_delete_elem(&procs, &tgid);
		count(AEGIS_COUNTER_IDENTITY_LOST);
		return 0;
	}
	proc = bpf_map_lookup_elem(&procs, &tgid);
	if (proc) {
		proc->start_boot_ns = start_of(child);
		proc->kill_boot_ns = 0;
		proc->doomed = 0;
	}
	return 0;
}

#endif
