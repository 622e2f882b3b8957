// SPDX-License-Identifier: GPL-2.0-only
/*
 * Optional, and only if [global] tamper_guard asks for it: nobody but Aegis changes what is Aegis'
 * in the kernel, ends its agent or gets into it. Everything is asked by number, so that other
 * programs' objects, processes and mounts never meet more than a look into a table.
 *
 * No hook looks at what another program returned before: the kernel asks no further once one of
 * them has refused, and the arguments after which it would stand are not the same everywhere.
 */
#include "guardians.bpf.h"

char LICENSE[] SEC("license") = "GPL";

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

enum { CGROUP_LEVELS = 16 };

/* Root may put the agent elsewhere: there it is guarded, too. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(aegis_guard_moved, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct aegis_guarded key = { .kind = AEGIS_GUARDED_CGROUP };
	struct cgroup *cgroup = to, *above;
	__u32 how = 2, i;

	if (!is_aegis(task))
		return 0;
	for (i = 0; i < CGROUP_LEVELS; i++) {
		above = parent_of(cgroup);
		if (!above)
			break;
		key.number = BPF_CORE_READ(cgroup, kn, id);
		bpf_map_update_elem(&guarded, &key, &how, BPF_ANY);
		how = 1;
		cgroup = above;
	}
	return 0;
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
