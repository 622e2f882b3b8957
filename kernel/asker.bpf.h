/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who asks: what aegis_recall() must know of the process that connects. Its entry in
 * `procs` says so, but to search that table is half of all that a connect() costs which
 * was asked before. So each CPU keeps what it found there for the processes that lately
 * connected on it. What is kept is what the entry still says:
 *
 * - Only a process's own exec changes what is kept of its entry, and by then it has one thread,
 *   which is in exec and not in connect(). Every exec is counted, whoever's it is, and what was
 *   kept before the last one is not used.
 * - An exec that no program saw has another exec_id: see record_exec().
 * - Who has the pid of a process that ended has another start.
 * - With another generation in force the class is another one's.
 * - Where a rule names a user or a unit, the class is not all that matters: nothing is kept.
 *
 * A program on a cgroup stays on its CPU, but may be preempted there by another one. So who
 * keeps something says that it writes, and who reads looks whether somebody wrote meanwhile.
 * On one CPU no barriers are needed for that.
 */
#ifndef AEGIS_ASKER_BPF_H
#define AEGIS_ASKER_BPF_H

#include "classify.bpf.h"

struct asker {
	__u64 question;
	__u32 program;
};

/*
 * In one word, so that no CPU reads half of it: the generation, flags and app, and whether the
 * file and the arguments are what they claim. 0: the answer is not to be kept.
 */
static __always_inline __u64 question_of(__u64 class_, __u32 identity)
{
	_Static_assert(AEGIS_CLASS_CONDITIONAL < 1 << 14, "bits 30 and 31 are free");

	if (CLASS_FLAG(class_, AEGIS_CLASS_CONDITIONAL) || identity & AEGIS_ID_CANARY)
		return 0;
	return class_ | (__u64)!!(identity & AEGIS_ID_TRUSTED) << 30 |
	       (__u64)!!(identity & AEGIS_ID_ARGV0_FALSE) << 31;
}

static __always_inline __u64 *exec_count(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&execs, &zero);
}

/* All of them, on every CPU. */
static __always_inline void forget_askers(void)
{
	__u64 *count = exec_count();

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* What *kept* holds, if it is of the process *wanted*. */
static __always_inline bool
read_asker(struct asker *asker, struct aegis_asker *kept, const struct aegis_asker *wanted)
{
	__u64 writes = READ_ONCE(kept->writes);

	asker->question = READ_ONCE(kept->question);
	asker->program = READ_ONCE(kept->program);
	return READ_ONCE(kept->tgid) == wanted->tgid &&
	       READ_ONCE(kept->start_boot_ns) == wanted->start_boot_ns &&
	       READ_ONCE(kept->execs) == wanted->execs &&
	       READ_ONCE(kept->exec_id) == wanted->exec_id &&
	       !(writes & 1) && READ_ONCE(kept->writes) == writes;
}

/* Whoever is preempted by another that writes leaves it at that. */
static __always_inline void
keep_asker(struct aegis_asker *kept, const struct aegis_asker *found)
{
	__u64 writes = READ_ONCE(kept->writes);

	if (writes & 1 || __sync_val_compare_and_swap(&kept->writes, writes, writes + 1) != writes)
		return;
	WRITE_ONCE(kept->tgid, found->tgid);
	WRITE_ONCE(kept->start_boot_ns, found->start_boot_ns);
	WRITE_ONCE(kept->execs, found->execs);
	WRITE_ONCE(kept->exec_id, found->exec_id);
	WRITE_ONCE(kept->question, found->question);
	WRITE_ONCE(kept->program, found->program);
	WRITE_ONCE(kept->writes, writes + 2);
}

/* Of the current process, as its entry says; false: it must be classified or numbered first. */
static __always_inline bool search_asker(struct aegis_asker *found, __u32 generation)
{
	struct aegis_proc *proc = bpf_map_lookup_elem(&procs, &found->tgid);
	__u64 class_;

	if (!proc || proc->start_boot_ns != found->start_boot_ns ||
	    proc->exec_id != found->exec_id)
		return false;
	class_ = READ_ONCE(proc->class_);
	found->question = question_of(class_, proc->flags);
	found->program = READ_ONCE(proc->program);
	return class_ >> 32 == generation && found->question && found->program;
}

/* Who the current process is; false: somebody of whom nothing is to be kept. */
static __always_inline bool find_asker(struct asker *asker, __u32 generation)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct aegis_asker wanted = {
		.tgid = task->tgid,
		.start_boot_ns = task->group_leader->start_boottime,
		.exec_id = task->self_exec_id,
	};
	__u32 place = wanted.tgid % AEGIS_ASKERS;
	struct aegis_asker *kept = bpf_map_lookup_elem(&askers, &place);
	__u64 *execs_ = exec_count();

	if (!kept || !execs_)
		return false;
	wanted.execs = READ_ONCE(*execs_);
	if (read_asker(asker, kept, &wanted) && asker->question >> 32 == generation)
		return true;
	if (!search_asker(&wanted, generation))
		return false;
	keep_asker(kept, &wanted);
	asker->question = wanted.question;
	asker->program = wanted.program;
	return true;
}

#endif
