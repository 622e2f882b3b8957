// SPDX-License-Identifier: GPL-2.0-only
/*
 * Optional, and only if [global] tamper_guard asks for it: nobody but Aegis changes what is Aegis'
 * in the kernel, ends its agent or gets into it. Everything is asked by number, so that other
 * programs' objects, processes and mounts never meet more than a look into a table.
 *
 * No hook looks at what another program returned before: the kernel asks no further once one of
 * them has refused, and the arguments after which it would stand are not the same everywhere.
 */
#include "guard.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* ---- who is Aegis: guard.bpf.h ---- */

static const char INIT[] = "init.scope", SYSTEM[] = "system.slice";
static const char AGENT_UNIT[] = "aegis.service", LOAD_UNIT[] = "aegis-load.service";

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
	return is_named(cgroup, AGENT_UNIT) || is_named(cgroup, LOAD_UNIT) ? OUR_UNIT : ELSEWHERE;
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
	__u32 tgid = task->tgid;

	if (!known || task->signal->live.counter)
		return 0;
	if (row && known->kind >= AEGIS_GUARDIAN_KEEPER)
		__sync_fetch_and_add(&row->alive, -1);
	bpf_map_delete_elem(&guardians, &tgid);
	return 0;
}

/* ---- maps, links, programs ---- */

/* What an open descriptor of the caller's leads to, if it is of that kind; 0 else. */
static __always_inline void *behind_fd(__u32 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = NULL;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file ? BPF_CORE_READ(file, private_data) : NULL;
}

static __always_inline int guard_map_fd(__u32 fd)
{
	struct bpf_map *map = behind_fd(fd);
	__u32 id = map ? BPF_CORE_READ(map, id) : 0;

	return is_denied(AEGIS_GUARDED_MAP, id) ? tell_refusal(AEGIS_REFUSED_MAP, id) : 0;
}

static __always_inline int guard_link_fd(__u32 fd)
{
	struct bpf_link *link = behind_fd(fd);
	__u32 id = link ? BPF_CORE_READ(link, id) : 0;

	return is_denied(AEGIS_GUARDED_LINK, id) ? tell_refusal(AEGIS_REFUSED_LINK, id) : 0;
}

/* As if it were not there, and untold: who lists all objects there are goes on to the next. */
static __always_inline int hide(enum aegis_guarded_kind kind, __u32 id)
{
	return is_denied(kind, id) ? -ENOENT : 0;
}

/*
 * Whoever has a descriptor of an object may do anything with it, so none is handed out (below, and
 * by number here). What was opened before the guard came is refused by what it leads to.
 */
SEC("lsm/bpf")
int BPF_PROG(aegis_guard_bpf, int cmd, union bpf_attr *attr)
{
	struct aegis_guard *row = guard_row();
	__u32 first = 0, batch_fd = 0;

	if (row && row->tester == bpf_get_current_pid_tgid() >> 32)
		__sync_fetch_and_add(&row->runs, 1);
	bpf_probe_read_kernel(&first, sizeof(first), attr);
	switch (cmd) {
	case BPF_MAP_GET_FD_BY_ID:
		return hide(AEGIS_GUARDED_MAP, first);
	case BPF_PROG_GET_FD_BY_ID:
		return hide(AEGIS_GUARDED_PROGRAM, first);
	case BPF_LINK_GET_FD_BY_ID:
		return hide(AEGIS_GUARDED_LINK, first);
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
		return guard_link_fd(first);
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_DELETE_ELEM:
	case BPF_MAP_LOOKUP_AND_DELETE_ELEM:
	case BPF_MAP_FREEZE:
		return guard_map_fd(first);
	case BPF_MAP_LOOKUP_AND_DELETE_BATCH:
	case BPF_MAP_UPDATE_BATCH:
	case BPF_MAP_DELETE_BATCH:
		bpf_probe_read_kernel(&batch_fd, sizeof(batch_fd), &attr->batch.map_fd);
		return guard_map_fd(batch_fd);
	}
	return 0;
}

/* Also one that only reads: a program that is loaded with it may write (the verifier does not ask). */
SEC("lsm/bpf_map")
int BPF_PROG(aegis_guard_map, struct bpf_map *map)
{
	return is_denied(AEGIS_GUARDED_MAP, map->id) ? tell_refusal(AEGIS_REFUSED_MAP, map->id) : 0;
}

SEC("lsm/bpf_prog")
int BPF_PROG(aegis_guard_prog, struct bpf_prog *prog)
{
	__u32 id = prog->aux->id;

	return is_denied(AEGIS_GUARDED_PROGRAM, id) ? tell_refusal(AEGIS_REFUSED_PROGRAM, id) : 0;
}

/* ---- pins ---- */

static __always_inline bool is_our_pin(struct inode *inode)
{
	struct aegis_guard *row;

	if (inode->i_sb->s_magic != BPF_FS_MAGIC)
		return false;
	row = guard_row();
	return row && inode->i_sb->s_dev == row->device &&
	       is_denied(AEGIS_GUARDED_PIN, inode->i_ino);
}

/*
 * Of a directory: making, removing and renaming in it. Of a pin: the way to a link's descriptor,
 * which no other hook sees. Every lookup of a path comes by here; few ask for MAY_WRITE.
 */
SEC("lsm/inode_permission")
int BPF_PROG(aegis_guard_inode, struct inode *inode, int mask)
{
	if (!(mask & MAY_WRITE) || !is_our_pin(inode) ||
	    how_guarded(AEGIS_GUARDED_PIN, inode->i_ino) == 1)
		return 0;
	return tell_refusal(AEGIS_REFUSED_PIN, inode->i_ino);
}

static __always_inline int guard_pin(struct inode *inode)
{
	return inode && is_our_pin(inode) ? tell_refusal(AEGIS_REFUSED_PIN, inode->i_ino) : 0;
}

/* The topmost directory lies in one that is not guarded: other instances have theirs there. */
SEC("lsm/inode_rename")
int BPF_PROG(aegis_guard_rename, struct inode *from, struct dentry *what)
{
	return guard_pin(what->d_inode);
}

SEC("lsm/path_chmod")
int BPF_PROG(aegis_guard_chmod, const struct path *path)
{
	return guard_pin(path->dentry->d_inode);
}

SEC("lsm/path_chown")
int BPF_PROG(aegis_guard_chown, const struct path *path)
{
	return guard_pin(path->dentry->d_inode);
}

/* ---- mounts ---- */

static __always_inline __u32 mount_id(struct vfsmount *mnt)
{
	__u64 place = (__u64)mnt - bpf_core_field_offset(struct mount___guard, mnt);

	return BPF_CORE_READ((struct mount___guard *)place, mnt_id);
}

SEC("lsm/sb_umount")
int BPF_PROG(aegis_guard_umount, struct vfsmount *mnt)
{
	__u32 id = mount_id(mnt);

	if (!how_guarded(AEGIS_GUARDED_MOUNT, id) || may_end_it())
		return 0;
	return tell_refusal(AEGIS_REFUSED_MOUNT, id);
}

/* Over our bpffs or what it lies in, /sys and /sys/fs; other places in there are others' business. */
static __always_inline int guard_mount_at(const struct path *path)
{
	__u32 id = mount_id(path->mnt), how = how_guarded(AEGIS_GUARDED_MOUNT, id);
	struct dentry *dentry = path->dentry, *parent = dentry->d_parent;
	char name[3] = {};

	if (!how || may_end_it())
		return 0;
	bpf_probe_read_kernel_str(name, sizeof(name), dentry->d_name.name);
	if (how == 1 && parent != dentry &&
	    (parent != parent->d_parent || dentry->d_name.len != 2 || name[0] != 'f' ||
	     name[1] != 's'))
		return 0;
	return tell_refusal(AEGIS_REFUSED_MOUNT, id);
}

SEC("lsm/sb_mount")
int BPF_PROG(aegis_guard_mount, const char *device, const struct path *path)
{
	return guard_mount_at(path);
}

SEC("lsm/move_mount")
int BPF_PROG(aegis_guard_move, const struct path *from, const struct path *to)
{
	__u32 id = mount_id(from->mnt);

	if (how_guarded(AEGIS_GUARDED_MOUNT, id) && !may_end_it())
		return tell_refusal(AEGIS_REFUSED_MOUNT, id);
	return guard_mount_at(to);
}

/* ---- the agent ---- */

/* 0 asks whether it lives, SIGHUP has it reload, SIGCONT has it go on: none does harm. */
static __always_inline int guard_signal(struct task_struct *task, int number)
{
	if (!number || number == SIGHUP || number == SIGCONT || !is_aegis(task) || may_end_it())
		return 0;
	return tell_refusal(AEGIS_REFUSED_SIGNAL, number);
}

SEC("lsm/task_kill")
int BPF_PROG(aegis_guard_kill, struct task_struct *task, void *info, int number)
{
	return guard_signal(task, number);
}

/* F_SETOWN and F_SETSIG: a signal when another file is ready. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(aegis_guard_sigio, struct task_struct *task, void *owner, int number)
{
	return guard_signal(task, number ? number : 29 /* SIGIO */);
}

/*
 * To read and write its memory, take its descriptors, trace it; what ps and lsof look at is not
 * that. Nor those whose children count as Aegis, nor one that is about to.
 */
SEC("lsm/ptrace_access_check")
int BPF_PROG(aegis_guard_trace, struct task_struct *child, unsigned int mode)
{
	if (!(mode & PTRACE_MODE_ATTACH) || (child->tgid != 1 && !guardian_task(child)) || may_all())
		return 0;
	return tell_refusal(AEGIS_REFUSED_TRACE, child->tgid);
}

/* prlimit(): a processor time of 1 s kills as well. */
SEC("lsm/task_setrlimit")
int BPF_PROG(aegis_guard_limit, struct task_struct *task, unsigned int resource)
{
	if (!is_aegis(task) || may_end_it())
		return 0;
	return tell_refusal(AEGIS_REFUSED_LIMIT, resource);
}

static const char KILL[] = "cgroup.kill", FREEZE[] = "cgroup.freeze", MEMORY[] = "memory.";

/* cgroup.kill and cgroup.freeze of where the agent is, or above; the memory of where it is. */
static __always_inline bool is_harmful(struct dentry *dentry, __u32 how)
{
	char name[16] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), dentry->d_name.name);
	if (how == 2 && !bpf_strncmp(name, sizeof(MEMORY) - 1, MEMORY))
		return true;
	return !bpf_strncmp(name, sizeof(name), KILL) || !bpf_strncmp(name, sizeof(name), FREEZE);
}

SEC("lsm/file_open")
int BPF_PROG(aegis_guard_open, struct file *file)
{
	struct inode *inode = file->f_inode;
	struct dentry *dentry;
	__u64 id;
	__u32 how;

	if (inode->i_sb->s_magic != CGROUP2_SUPER_MAGIC ||
	    !(((struct file___guard *)file)->f_mode & FMODE_WRITE))
		return 0;
	dentry = file->f_path.dentry;
	id = dentry->d_parent->d_inode->i_ino;
	how = how_guarded(AEGIS_GUARDED_CGROUP, id);
	if (!how || !is_harmful(dentry, how) || may_end_it())
		return 0;
	return tell_refusal(AEGIS_REFUSED_CGROUP, id);
}
