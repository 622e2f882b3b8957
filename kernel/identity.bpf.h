/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who a process is: facts about the executed file and its arguments, taken
 * once, at exec, by the kernel. mm->exe_file, comm and argv belong to the
 * process afterwards: an unprivileged user forges them (PR_SET_MM_MAP from an
 * own user namespace), so nothing here is read again later.
 */
#ifndef AEGIS_IDENTITY_BPF_H
#define AEGIS_IDENTITY_BPF_H

#include "maps.bpf.h"

enum { WALK_STEPS = 160 };		/* components and mount crossings */

/* One climb from a file to the top of its mount tree. */
struct walk {
	struct dentry *dentry;
	struct mount *mount;
	struct mount *top;		/* holds the path's first component */
	struct aegis_proc *proc;	/* second climb: where to write */
	struct dentry *root;		/* the process's own, as chroot() left it */
	struct vfsmount *root_mnt;
	__u32 length;			/* bytes of components so far */
	__u32 inside;			/* of them below that root; 0: not met */
	__u32 kept;			/* the longest tail that fits aegis_proc.path */
	bool complete;			/* reached the top */
};

/*
 * The __noinline functions here and elsewhere keep the frames of one call chain
 * within 512 bytes, each rounded up to 32 (the count of kernel 6.1).
 */

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* One step up. Returns the component stepped over, NULL if none; sets *stop. */
static __always_inline struct dentry *climb(struct walk *walk, bool *stop)
{
	struct dentry *dentry = walk->dentry, *parent;
	struct mount *mount = walk->mount, *up;

	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
		up = BPF_CORE_READ(mount, mnt_parent);
		if (up == mount) {
			walk->complete = true;
			*stop = true;
			return NULL;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = up;
		return NULL;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry) {		/* memfd, or cut off from its tree */
		*stop = true;
		return NULL;
	}
	walk->top = mount;
	walk->dentry = parent;
	return dentry;
}

static long measure_step(__u32 index, struct walk *walk)
{
	bool stop = false;
	struct dentry *dentry;

	if (walk->dentry == walk->root && walk->mount == mount_of(walk->root_mnt))
		walk->inside = walk->length;
	dentry = climb(walk, &stop);
	if (dentry) {
		walk->length += BPF_CORE_READ(dentry, d_name.len) + 1;
		if (walk->length < AEGIS_PATH_SIZE)
			walk->kept = walk->length;
	}
	return stop;
}

static long write_step(__u32 index, struct walk *walk)
{
	bool stop = false;
	struct dentry *dentry = climb(walk, &stop);
	struct aegis_proc *proc = walk->proc;
	const unsigned char *name;
	__u32 len, at;

	if (!dentry)
		return stop;
	len = BPF_CORE_READ(dentry, d_name.len);
	name = BPF_CORE_READ(dentry, d_name.name);
	at = walk->kept - len - 1;
	/* Else clang writes at + 1 as kept - len, which the verifier of 6.12 has not bounded. */
	barrier_var(at);
	/* A rename between the climbs changes lengths: it never goes before 0. */
	if (len >= AEGIS_PATH_SIZE || at >= AEGIS_PATH_SIZE - 1) {
		walk->complete = false;
		return 1;
	}
	proc->path.text[at] = '/';
	bpf_probe_read_kernel(&proc->path.text[at + 1], len, name);
	walk->kept = at;
	return stop || !at;
}

/* Not in a mount tree that a user namespace owns, nor in a detached one. */
static __always_inline bool in_host_tree(struct mount *mount)
{
	struct mnt_namespace *ns = BPF_CORE_READ(mount, mnt_ns);

	return ns && BPF_CORE_READ(ns, user_ns, level) == 0;
}

/*
 * Mounts in between (a separate /usr, a service's ProtectSystem binds) are the
 * host's: the tree was built by the initial user namespace. What counts is that
 * the first component hangs below the agent's own root directory.
 */
static __always_inline bool on_host_root(struct walk *walk, struct mount *first)
{
	__u32 zero = 0;
	struct aegis_host *host_ = bpf_map_lookup_elem(&host, &zero);
	struct mount *top = walk->top;

	if (!host_ || !host_->root_dentry || !walk->complete || !top)
		return false;
	return (__u64)BPF_CORE_READ(top, mnt.mnt_root) == host_->root_dentry &&
	       in_host_tree(first);
}

/* A FUSE server tells any owner and mode it likes: never trusted. */
static __always_inline bool owned_by_root(struct inode *inode)
{
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);

	return BPF_CORE_READ(inode, i_uid.val) == 0 &&
	       !(BPF_CORE_READ(inode, i_mode) & S_IWGRP_OR_OTH) &&
	       BPF_CORE_READ(sb, s_magic) != FUSE_SUPER_MAGIC &&
	       BPF_CORE_READ(sb, s_user_ns, level) == 0;
}

static __always_inline void write_path(struct aegis_proc *proc, struct file *file,
				       struct walk *measured)
{
	struct walk walk;

	clear_unknown(&walk, sizeof(walk));
	walk.dentry = BPF_CORE_READ(file, f_path.dentry);
	walk.mount = mount_of(BPF_CORE_READ(file, f_path.mnt));
	walk.proc = proc;
	walk.kept = measured->kept;
	walk.complete = true;
	bpf_loop(WALK_STEPS, write_step, &walk, 0);
	if (!walk.complete || walk.kept) {
		/* Changed under us: half a path must not look like a whole one. */
		__builtin_memset(&proc->path, 0, sizeof(proc->path));
		measured->complete = false;
		measured->kept = 0;
	}
}

static __noinline int
fill_path(struct aegis_proc *proc, struct file *file, struct task_struct *task)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct mount *first = mount_of(BPF_CORE_READ(file, f_path.mnt));
	const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
	struct walk walk;

	clear_unknown(&walk, sizeof(walk));
	walk.dentry = dentry;
	walk.mount = first;
	walk.root = BPF_CORE_READ(task, fs, root.dentry);
	walk.root_mnt = BPF_CORE_READ(task, fs, root.mnt);
	if (BPF_CORE_READ(dentry, d_name.len) >= AEGIS_NAME_SIZE)
		proc->flags |= AEGIS_ID_NAME_CUT;
	else
		bpf_probe_read_kernel_str(&proc->exe, sizeof(proc->exe), name);

	bpf_loop(WALK_STEPS, measure_step, &walk, 0);
	if (walk.kept)
		write_path(proc, file, &walk);
	if (!walk.kept)			/* memfd, a very long name, or a race */
		bpf_probe_read_kernel_str(&proc->path, sizeof(proc->path), name);
	if (!walk.complete || !walk.kept || walk.kept != walk.length)
		proc->flags |= AEGIS_ID_PATH_CUT;
	else if (walk.inside)
		proc->root_off = walk.length - walk.inside;
	if (on_host_root(&walk, first))
		proc->flags |= AEGIS_ID_HOST_FS;
	return 0;
}

/* *file* as *task* executed it. */
static __always_inline void
fill_file(struct aegis_proc *proc, struct file *file, struct task_struct *task)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	proc->root_off = 0;
	proc->program = 0;
	__builtin_memset(&proc->exe, 0, sizeof(proc->exe));
	__builtin_memset(&proc->path, 0, sizeof(proc->path));
	proc->inode = BPF_CORE_READ(inode, i_ino);
	proc->device = BPF_CORE_READ(inode, i_sb, s_dev);
	fill_path(proc, file, task);
	if (!BPF_CORE_READ(inode, i_nlink))
		proc->flags |= AEGIS_ID_UNLINKED;
	if ((proc->flags & AEGIS_ID_HOST_FS) && owned_by_root(inode))
		proc->flags |= AEGIS_ID_TRUSTED;
}

/* Zeroed storage for *tgid*. */
static __always_inline struct aegis_proc *new_proc(__u32 tgid)
{
	static const struct aegis_proc blank;

	if (bpf_map_update_elem(&procs, &tgid, &blank, BPF_ANY)) {
		bpf_map_delete_elem(&procs, &tgid);
		count(AEGIS_COUNTER_IDENTITY_LOST);
		return NULL;
	}
	return bpf_map_lookup_elem(&procs, &tgid);
}

/*
 * All kernel threads are one program. Its name stands where a path does: that of
 * a file begins with a slash, and what is no path matches none, so no file can be
 * called so. The flag comes first: a kernel thread may have borrowed an mm
 * (kthread_use_mm()), and is not the program that it works for.
 */
static __always_inline void fill_live(struct aegis_proc *proc, struct task_struct *task)
{
	/* Before the file: that of another exec then does not pass for this one's. */
	__u64 exec_id = BPF_CORE_READ(task, self_exec_id);
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct file *file = mm ? BPF_CORE_READ(mm, exe_file) : NULL;

	proc->exec_id = exec_id;
	proc->start_boot_ns = start_of(task);
	if (BPF_CORE_READ(task, flags) & PF_KTHREAD) {
		proc->flags |= AEGIS_ID_KTHREAD | AEGIS_ID_HOST_FS | AEGIS_ID_TRUSTED;
		__builtin_memcpy(proc->path.text, AEGIS_KERNEL_PROGRAM,
				 sizeof(AEGIS_KERNEL_PROGRAM));
		return;
	}
	proc->flags |= AEGIS_ID_SEEDED;
	if (file) {
		fill_file(proc, file, task);
	} else {
		proc->flags |= AEGIS_ID_PATH_CUT | AEGIS_ID_NAME_CUT;
	}
}

#endif
