/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who may do what the guard refuses everybody else, and how a refusal is told.
 *
 * Nothing that a process can bring about for itself makes it Aegis: not its file (anybody can
 * execute python3), nor its parent (orphans become children of PID 1). It was forked by PID 1, and
 * when it executed it was in the cgroup of one of our units, where PID 1 puts what these start.
 * Or it was started by who started the agent: a shell, where no init does.
 */
#ifndef AEGIS_GUARD_BPF_H
#define AEGIS_GUARD_BPF_H

#include "maps.bpf.h"
#include "guard.h"

#define ENOENT 2
#define CGROUP2_SUPER_MAGIC 0x63677270
#define BPF_FS_MAGIC 0xcafe4a11
#define FMODE_WRITE 2
#define MAY_WRITE 2
#define PTRACE_MODE_ATTACH 2
#define SIGHUP 1
#define SIGCONT 18

AEGIS_MAP(guard, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_guard, 1, 0);
AEGIS_MAP(guarded, BPF_MAP_TYPE_HASH, struct aegis_guarded, __u32, AEGIS_GUARDED_MAX,
	  BPF_F_NO_PREALLOC);
AEGIS_MAP(guardians, BPF_MAP_TYPE_HASH, __u32, struct aegis_guardian, AEGIS_GUARDIANS_MAX,
	  BPF_F_NO_PREALLOC);
AEGIS_MAP(refused, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_refused_count, AEGIS_REFUSED_MAX, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, AEGIS_REFUSALS_BYTES);
} refusals SEC(".maps");

/* Further fields of structs that core.bpf.h has: CO-RE ignores what follows the underscores. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mount___guard {
	int mnt_id;
	struct vfsmount mnt;
};

struct file___guard {
	unsigned int f_mode;
};

struct task_struct___guard {
	unsigned int ptrace;
};

struct bpf_map {
	__u32 id;
};

struct bpf_link {
	__u32 id;
};

struct bpf_prog_aux {
	__u32 id;
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

#pragma clang attribute pop

/* ---- who ---- */

static __always_inline struct aegis_guard *guard_row(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&guard, &zero);
}

/* NULL: nobody special, or another process had that number. */
static __always_inline struct aegis_guardian *guardian_of(__u32 tgid, __u64 start)
{
	struct aegis_guardian *known = bpf_map_lookup_elem(&guardians, &tgid);

	return known && known->start_boot_ns == start ? known : NULL;
}

static __always_inline struct aegis_guardian *guardian_task(struct task_struct *task)
{
	return guardian_of(task->tgid, task->group_leader->start_boottime);
}

/*
 * Where nobody could ever be Aegis again the guard is over: what was started from a shell that is
 * gone, and ended, must not lock the host's owner out of his own tables.
 */
static __always_inline bool is_over(void)
{
	struct aegis_guard *row = guard_row();

	return !row || (!row->by_init && (__s32)READ_ONCE(row->alive) <= 0);
}

static __always_inline bool is_aegis(struct task_struct *task)
{
	struct aegis_guardian *known = guardian_task(task);

	return known && (known->kind == AEGIS_GUARDIAN_AEGIS ||
			 known->kind == AEGIS_GUARDIAN_OF_AEGIS);
}

/* Whether the caller is Aegis; the kernel's own threads are not asked. */
static __always_inline bool may_all(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return is_aegis(task) || task->flags & PF_KTHREAD || is_over();
}

/* The same, or who answers for the agent's life: PID 1, and who started it. */
static __always_inline bool may_end_it(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct aegis_guardian *known = guardian_task(task);

	return task->tgid == 1 || (known && known->kind >= AEGIS_GUARDIAN_KEEPER) || may_all();
}

/* ---- what ---- */

/* How it is guarded; 0: it is not. */
static __always_inline __u32 how_guarded(enum aegis_guarded_kind kind, __u64 number)
{
	struct aegis_guarded key = { .number = number, .kind = kind };
	__u32 *how = bpf_map_lookup_elem(&guarded, &key);

	return how ? *how : 0;
}

static __noinline int tell_refusal(__u32 what, __u64 number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct aegis_refused_count *count_ = bpf_map_lookup_elem(&refused, &what);
	struct aegis_refusal *refusal;
	struct aegis_guard *row;
	struct aegis_proc *proc;
	__u32 tgid = task->tgid;

	if (count_)
		__sync_fetch_and_add(&count_->count, 1);
	refusal = bpf_ringbuf_reserve(&refusals, sizeof(*refusal), 0);
	if (!refusal) {
		row = guard_row();
		if (row)
			__sync_fetch_and_add(&row->lost, 1);
		return -EPERM;
	}
	__builtin_memset(refusal, 0, sizeof(*refusal));
	refusal->boot_ns = bpf_ktime_get_boot_ns();
	refusal->number = number;
	refusal->tgid = tgid;
	refusal->uid = (__u32)bpf_get_current_uid_gid();
	refusal->what = what;
	bpf_get_current_comm(refusal->comm, sizeof(refusal->comm));
	proc = bpf_map_lookup_elem(&procs, &tgid);
	if (proc && proc->start_boot_ns == task->group_leader->start_boottime)
		__builtin_memcpy(&refusal->path, &proc->path, sizeof(refusal->path));
	bpf_ringbuf_submit(refusal, 0);
	return -EPERM;
}

/* Whether it is ours and the caller is not. */
static __always_inline bool is_denied(enum aegis_guarded_kind kind, __u64 number)
{
	return how_guarded(kind, number) && !may_all();
}

#endif
