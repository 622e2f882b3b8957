/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which app a process is: the highest number among all whose selectors match
 * (the compiler numbers them in order of precedence). Works on the strings
 * stored at exec. Rules with `user` or `unit` are judged at the moment of the
 * connection, for the processes that a "shadow" key marks as concerned.
 */
#ifndef AEGIS_CLASSIFY_BPF_H
#define AEGIS_CLASSIFY_BPF_H

#include "maps.bpf.h"

#define CLASS_FLAG(class_, flag) ((class_) & ((__u64)(flag) << 16))

enum { UNIT_LEVELS = 1024 };		/* cgroups climbed in search of a unit's name */

struct matcher {
	struct aegis_config *config;
	struct aegis_proc *proc;
	__u32 uid, unit;
	__u32 have;			/* enum aegis_selector bits this process can satisfy */
	__u32 exe, path, cmdline;	/* ids of its texts; 0: no rule knows them */
	__u32 start;			/* of the arguments being tried, in bytes */
	__u32 app, shadow;		/* the best so far */
	__u32 whitelisted;
	/*
	 * In slots of its own: written at a variable offset, it would leave a neighbour in its
	 * first slot unreadable to 6.1 ("invalid size of register fill").
	 */
	struct aegis_text run __attribute__((aligned(8)));
};

/*
 * All ones if *bit* of *mask* is set, else 0. No branches here and in what uses
 * it: the verifier would follow each of them for each mask.
 */
static __always_inline __u32 spread(__u32 mask, __u32 bit)
{
	__u32 all = mask << __builtin_clz(bit);

	barrier_var(all);
	return (__s32)all >> 31;
}

/* Of numbers below 2^31. */
static __always_inline __u32 larger(__u32 a, __u32 b)
{
	__u32 less = a - b;

	barrier_var(less);
	less = (__s32)less >> 31;
	return (b & less) | (a & ~less);
}

static long match_mask(__u32 index, struct matcher *m)
{
	struct aegis_rule_key key = { .generation = m->config->generation };
	__u32 mask, *app;

	if (index >= m->config->mask_count || index >= AEGIS_MASKS_MAX)
		return 1;
	mask = m->config->masks[index];
	if (mask & ~m->have)
		return 0;
	key.mask = mask;
	key.exe = m->exe & spread(mask, AEGIS_SELECT_EXE);
	key.path = m->path & (spread(mask, AEGIS_SELECT_PATH) | spread(mask, AEGIS_SELECT_ANY_PATH));
	key.cmdline = m->cmdline & spread(mask, AEGIS_SELECT_CMDLINE);
	key.uid = m->uid & spread(mask, AEGIS_SELECT_USER);
	key.unit = m->unit & spread(mask, AEGIS_SELECT_UNIT);
	app = bpf_map_lookup_elem(&rules, &key);
	if (!app)
		return 0;
	/* The whitelist's app is 0. */
	m->whitelisted |= spread(mask, AEGIS_SELECT_WHITELIST);
	m->shadow = larger(m->shadow, *app & spread(mask, AEGIS_SELECT_SHADOW));
	m->app = larger(m->app, *app & ~spread(mask, AEGIS_SELECT_SHADOW));
	return 0;
}

/* Try each leading run of whole arguments, joined by one space. */
static long match_run(__u32 index, struct matcher *m)
{
	struct aegis_proc *proc = m->proc;
	__u32 from = m->start + index, *id;
	char byte;

	if (from >= proc->cmdline_len || from >= AEGIS_CMDLINE_SIZE ||
	    index >= AEGIS_PATH_SIZE - 1)
		return 1;
	byte = proc->cmdline[from];
	if (byte) {
		m->run.text[index] = byte;
		return 0;
	}
	id = bpf_map_lookup_elem(&cmdlines, &m->run);
	if (id) {
		m->cmdline = *id;
		m->have |= AEGIS_SELECT_CMDLINE;
		bpf_loop(AEGIS_MASKS_MAX, match_mask, m, 0);
	}
	m->run.text[index] = ' ';
	return 0;
}

static __always_inline __u32 id_of(void *map, const void *text)
{
	__u32 *id = bpf_map_lookup_elem(map, text);

	return id ? *id : 0;
}

static __always_inline void match_texts(struct matcher *m)
{
	struct aegis_proc *proc = m->proc;

	/* Copied: 6.1 takes no memory that a global function was given for a key. */
	if (!(proc->flags & AEGIS_ID_NAME_CUT)) {
		bpf_probe_read_kernel(&m->run, sizeof(proc->exe), &proc->exe);
		m->exe = id_of(&exes, &m->run);
	}
	if (!(proc->flags & AEGIS_ID_PATH_CUT)) {
		bpf_probe_read_kernel(&m->run, sizeof(proc->path), &proc->path);
		m->path = id_of(&paths, &m->run);
	}
	if (m->exe)
		m->have |= AEGIS_SELECT_EXE;
	if (m->path)
		m->have |= AEGIS_SELECT_ANY_PATH;
	if (m->path && proc->flags & AEGIS_ID_HOST_FS)
		m->have |= AEGIS_SELECT_PATH;
}

/*
 * A process in a root directory of its own is also what it is called in there,
 * for the rules with namespace = "any". Returns false when no rule knows that.
 */
static __always_inline bool take_inner_path(struct matcher *m)
{
	struct aegis_proc *proc = m->proc;
	__u32 off = proc->root_off;

	if (!off || off >= AEGIS_PATH_SIZE)
		return false;
	clear_unknown(&m->run, sizeof(m->run));
	bpf_probe_read_kernel_str(&m->run, sizeof(m->run), proc->path.text + off);
	m->path = id_of(&paths, &m->run);
	m->have = (m->have & ~AEGIS_SELECT_PATH) | AEGIS_SELECT_ANY_PATH;
	return m->path;
}

/* With no arguments, with all of them, and from the script on. */
static __always_inline void match_masks(struct matcher *m)
{
	bpf_loop(AEGIS_MASKS_MAX, match_mask, m, 0);
	if (!m->config->has_cmdline)
		return;
	m->start = 0;
	clear_unknown(&m->run, sizeof(m->run));
	bpf_loop(AEGIS_PATH_SIZE, match_run, m, 0);
	if (!(m->proc->flags & AEGIS_ID_SCRIPT))
		return;
	m->start = m->proc->script_off;
	clear_unknown(&m->run, sizeof(m->run));
	bpf_loop(AEGIS_PATH_SIZE, match_run, m, 0);
}

/*
 * Of the selectors in *have* beside exe, path and cmdline: the class by those
 * alone (AEGIS_SELECT_SHADOW, and whatever trust earns), as kept in
 * aegis_proc.class_, or the strongest rule with `user` or `unit`.
 * One global function for both: verified once.
 */
__noinline __u64 aegis_match(struct aegis_proc *proc, struct aegis_config *config,
			     __u32 have, __u32 uid, __u32 unit)
{
	struct matcher m;
	__u64 flags = 0;

	if (!proc || !config)
		return 0;
	m.config = config;
	m.proc = proc;
	m.uid = uid;
	m.unit = unit;
	clear_unknown(&m.have, sizeof(m) - offsetof(struct matcher, have));
	m.have |= have;
	match_texts(&m);
	match_masks(&m);
	if (take_inner_path(&m))
		match_masks(&m);
	if (m.whitelisted)
		flags |= AEGIS_CLASS_WHITELISTED;
	if (m.shadow > m.app)
		flags |= AEGIS_CLASS_CONDITIONAL;
	return (__u64)config->generation << 32 | flags << 16 | m.app;
}

static __always_inline __u64 classify(struct aegis_proc *proc, struct aegis_config *config)
{
	__u32 have = AEGIS_SELECT_SHADOW;

	if (proc->flags & AEGIS_ID_TRUSTED)
		have |= AEGIS_SELECT_WHITELIST;
	return aegis_match(proc, config, have, 0, 0);
}

static __always_inline __u16 classify_connecting(struct aegis_proc *proc,
						 struct aegis_config *config,
						 __u32 uid, __u32 unit)
{
	return aegis_match(proc, config,
			   AEGIS_SELECT_USER | (unit ? AEGIS_SELECT_UNIT : 0), uid, unit);
}

/* The end of a string, as a number: its last 8 bytes. *size* counts the NUL. */
static __always_inline __u64 tail_of(const char *name, long size)
{
	__u64 tail = 0;

	bpf_probe_read_kernel(&tail, sizeof(tail), name + size - 1 - sizeof(tail));
	return bpf_be64_to_cpu(tail);
}

/* One comparison, and no branch for each byte. */
static __always_inline bool ends_with(__u64 tail, long size, const char *suffix, int len)
{
	__u64 want = 0, mask = len < 8 ? (1ULL << 8 * len) - 1 : ~0ULL;
	int i;

	for (i = 0; i < len; i++)
		want = want << 8 | (__u8)suffix[i];
	return size > len && (tail & mask) == want;
}

static __always_inline bool is_slice(__u64 tail, long size)
{
	return ends_with(tail, size, ".slice", 6);
}

static __always_inline bool is_unit(__u64 tail, long size)
{
	return ends_with(tail, size, ".service", 8) || ends_with(tail, size, ".scope", 6) ||
	       ends_with(tail, size, ".socket", 7) || ends_with(tail, size, ".mount", 6) ||
	       ends_with(tail, size, ".swap", 5);
}

struct unit_search {
	struct cgroup *cgroup;
	struct aegis_unit *room;	/* for a name at a time: there is none on the stack */
	const char *unit, *slice;	/* outermost unit, innermost slice */
	bool complete;
};

static long unit_step(__u32 index, struct unit_search *search)
{
	struct cgroup *cgroup = search->cgroup;	/* a local: CO-RE must not see our struct */
	const char *name = BPF_CORE_READ(cgroup, kn, name);
	struct cgroup_subsys_state *parent;
	long size = bpf_probe_read_kernel_str(search->room, sizeof(*search->room), name);
	__u64 tail = tail_of(name, size);

	/* What does not fit is taken for a unit: its children must not choose. */
	if (is_unit(tail, size) || size == AEGIS_UNIT_SIZE)
		search->unit = name;
	else if (!search->slice && is_slice(tail, size))
		search->slice = name;
	parent = BPF_CORE_READ(cgroup, self.parent);
	if (!parent) {
		search->complete = true;
		return 1;
	}
	search->cgroup = BPF_CORE_READ(parent, cgroup);
	return 0;
}

/*
 * As systemd names it: the outermost cgroup directory that is a unit and no
 * slice, so that neither a delegated child of a service nor a user's own
 * manager picks another name; else the innermost slice; else the process's own
 * directory. Empty, which is no unit, when the tree is too deep to climb or the
 * name does not fit.
 * A global function: verified once, on its own; it takes *task_* as a number.
 */
__noinline int aegis_read_unit(struct aegis_unit *unit, __u64 task_)
{
	struct task_struct *task = (void *)task_;
	struct cgroup *own = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	struct unit_search search;
	const char *name;

	if (!unit)
		return 0;
	clear_unknown(&search, sizeof(search));
	search.cgroup = own;
	search.room = unit;
	bpf_loop(UNIT_LEVELS, unit_step, &search, 0);
	__builtin_memset(unit, 0, sizeof(*unit));
	if (!search.complete)
		return 0;
	name = search.unit ? search.unit : search.slice ? search.slice :
	       BPF_CORE_READ(own, kn, name);
	if (bpf_probe_read_kernel_str(unit, sizeof(*unit), name) == sizeof(*unit))
		__builtin_memset(unit, 0, sizeof(*unit));
	return 0;
}

/* The policy's id of that unit; 0: no rule names it. Global: verified once. */
__noinline int aegis_current_unit(void)
{
	/* 6.1 demands that what a global function is given be initialised. */
	struct aegis_unit unit = {};

	aegis_read_unit(&unit, bpf_get_current_task());
	return id_of(&units, &unit);
}

#endif
