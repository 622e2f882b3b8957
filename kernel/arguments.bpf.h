/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a process was told when it was executed: its arguments, where among them
 * the script is, and whether the first one is honest.
 */
#ifndef AEGIS_ARGUMENTS_BPF_H
#define AEGIS_ARGUMENTS_BPF_H

#include "maps.bpf.h"

enum { SCRIPT_ARGS = 10 };		/* each #! level adds at most two arguments */

/* How much of [arg_start, arg_end) to store; marks what is cut. */
static __always_inline __u32 cmdline_size(struct aegis_proc *proc, struct mm_struct *mm)
{
	unsigned long size = BPF_CORE_READ(mm, arg_end) - BPF_CORE_READ(mm, arg_start);

	if (size < AEGIS_CMDLINE_SIZE)
		return size;
	proc->flags |= AEGIS_ID_CMDLINE_CUT;
	return AEGIS_CMDLINE_SIZE - 1;
}

static __always_inline void keep_cmdline(struct aegis_proc *proc, __u32 size, long error)
{
	if (error)
		proc->flags |= AEGIS_ID_CMDLINE_LOST;
	else
		proc->cmdline_len = size;
}

struct script_search {
	struct aegis_proc *proc;
	__u32 start;			/* of the current argument */
	__u32 number;			/* of it, from 0 */
	bool differs;
	struct aegis_text name;
};

static long script_step(__u32 index, struct script_search *search)
{
	struct aegis_proc *proc = search->proc;
	__u32 at = index - search->start;
	char byte;

	if (index >= proc->cmdline_len || index >= AEGIS_CMDLINE_SIZE)
		return 1;
	byte = proc->cmdline[index];
	if (at >= AEGIS_PATH_SIZE || byte != search->name.text[at])
		search->differs = true;
	if (byte)
		return 0;
	if (!search->differs && search->number) {
		proc->script_off = search->start;
		proc->flags |= AEGIS_ID_SCRIPT;
		return 1;
	}
	search->start = index + 1;
	search->differs = false;
	return search->number++ >= SCRIPT_ARGS;
}

/* `#!/usr/bin/env X` runs env on the script, and env then executes X on it. */
static __always_inline bool is_env_on_script(struct aegis_proc *proc)
{
	const char *exe = proc->exe.text;

	return (proc->flags & (AEGIS_ID_SCRIPT | AEGIS_ID_TRUSTED)) ==
	       (AEGIS_ID_SCRIPT | AEGIS_ID_TRUSTED) &&
	       exe[0] == 'e' && exe[1] == 'n' && exe[2] == 'v' && !exe[3];
}

/*
 * The script's name among the new arguments: the kernel put it there as typed.
 * *proc* still holds the program that called exec.
 */
static __noinline int
fill_arguments(struct aegis_proc *proc, struct mm_struct *mm, struct linux_binprm *bprm)
{
	struct script_search search;
	const char *filename = BPF_CORE_READ(bprm, filename);
	__u32 size, script_off = proc->script_off;

	clear_unknown(&search, sizeof(search));
	search.proc = proc;
	if (filename != BPF_CORE_READ(bprm, interp))
		bpf_probe_read_kernel_str(&search.name, sizeof(search.name), filename);
	else if (is_env_on_script(proc) && script_off < AEGIS_CMDLINE_SIZE)
		bpf_probe_read_kernel_str(&search.name, sizeof(search.name),
					  proc->cmdline + script_off);
	proc->flags = 0;
	proc->cmdline_len = 0;
	proc->script_off = 0;
	__builtin_memset(proc->cmdline, 0, sizeof(proc->cmdline));
	size = cmdline_size(proc, mm);
	keep_cmdline(proc, size, bpf_probe_read_user(proc->cmdline, size,
						     (void *)BPF_CORE_READ(mm, arg_start)));
	if (search.name.text[0])
		bpf_loop(AEGIS_CMDLINE_SIZE, script_step, &search, 0);
	return 0;
}

enum { NOT_NAME = 1, NOT_BASE = 2 };

struct argv0_check {
	struct aegis_proc *proc;
	__u32 base;			/* where the last component of the name starts */
	__u32 wrong;			/* NOT_NAME, NOT_BASE */
	struct aegis_text name;
};

static long find_base(__u32 index, struct argv0_check *check)
{
	if (index >= AEGIS_PATH_SIZE || !check->name.text[index])
		return 1;
	if (check->name.text[index] == '/')
		check->base = index + 1;
	return 0;
}

static long compare_argv0(__u32 index, struct argv0_check *check)
{
	__u32 at = check->base + index;
	char byte;

	if (index >= AEGIS_PATH_SIZE)
		return 1;
	byte = check->proc->cmdline[index];
	if (byte != check->name.text[index])
		check->wrong |= NOT_NAME;
	if (at >= AEGIS_PATH_SIZE || byte != check->name.text[at])
		check->wrong |= NOT_BASE;
	return !byte || check->wrong == (NOT_NAME | NOT_BASE);
}

/*
 * Arguments are the caller's to choose, but argv[0] can be compared with what was
 * given to execve(): the same, or its last component. A script's comes from the
 * kernel.
 */
static __noinline int check_argv0(struct aegis_proc *proc, struct linux_binprm *bprm)
{
	const char *filename = BPF_CORE_READ(bprm, filename);
	struct argv0_check check;

	if (!proc->cmdline_len || filename != BPF_CORE_READ(bprm, interp))
		return 0;
	clear_unknown(&check, sizeof(check));
	check.proc = proc;
	bpf_probe_read_kernel_str(&check.name, sizeof(check.name), filename);
	bpf_loop(AEGIS_PATH_SIZE, find_base, &check, 0);
	bpf_loop(AEGIS_PATH_SIZE, compare_argv0, &check, 0);
	if (check.wrong == (NOT_NAME | NOT_BASE))
		proc->flags |= AEGIS_ID_ARGV0_FALSE;
	return 0;
}

#endif
