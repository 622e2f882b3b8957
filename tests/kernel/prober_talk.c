/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prober -   one command a line on stdin, one line of answer (OK or an errno's
 * name) each, until end of file:
 *	FORM ADDRESS PORT [VIA]	try it
 *	setuid UID		become that user
 *	comm TEXT		rename this thread (PR_SET_NAME)
 *	argv TEXT		overwrite argv[0] in place, as ps will show it
 *	exe FILE		in a user namespace of its own, claim to run FILE
 *				(PR_SET_MM_MAP): what /proc/self/exe then says
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/prctl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "prober.h"

static char *own_argv0;

static int become(const char *text)
{
	uid_t uid = strtoul(text, NULL, 10);

	if (setgroups(0, NULL) || setresgid(uid, uid, uid))
		return -errno;
	return result(setresuid(uid, uid, uid));
}

static int lie_in_argv(const char *text)
{
	size_t room = strlen(own_argv0);

	if (strlen(text) > room)
		return -ENAMETOOLONG;
	memset(own_argv0, 0, room);
	memcpy(own_argv0, text, strlen(text));
	return 0;
}

/* The addresses in /proc/self/stat that PR_SET_MM_MAP wants back unchanged. */
static int read_mm_map(struct prctl_mm_map *map)
{
	unsigned long long value[53] = { 0 };
	char text[4096], *cursor;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (size <= 0)
		return -EIO;
	text[size] = 0;
	cursor = strrchr(text, ')') + 3;	/* field 3, the state */
	for (int i = 4; i < 53 && (cursor = strchr(cursor, ' ')); i++)
		value[i] = strtoull(++cursor, NULL, 10);
	map->start_code = value[26];
	map->end_code = value[27];
	map->start_stack = value[28];
	map->start_data = value[45];
	map->end_data = value[46];
	map->start_brk = value[47];
	map->brk = (uintptr_t)sbrk(0);
	map->arg_start = value[48];
	map->arg_end = value[49];
	map->env_start = value[50];
	map->env_end = value[51];
	return 0;
}

/* While a page of the old file is mapped the kernel says EBUSY: copy, replace. */
static int drop_mappings_of_self(void)
{
	char line[PATH_MAX + 128];
	FILE *maps = fopen("/proc/self/maps", "re");

	if (!maps)
		return -errno;
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char mode[5];
		int prot = 0;
		void *copy;

		if (!strstr(line, self_path) ||
		    sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3)
			continue;
		prot |= mode[0] == 'r' ? PROT_READ : 0;
		prot |= mode[1] == 'w' ? PROT_WRITE : 0;
		prot |= mode[2] == 'x' ? PROT_EXEC : 0;
		copy = mmap(NULL, end - start, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (copy == MAP_FAILED)
			return -errno;
		memcpy(copy, (void *)start, end - start);
		if (mprotect(copy, end - start, prot) ||
		    mremap(copy, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED,
			   start) == MAP_FAILED)
			return -errno;
	}
	fclose(maps);
	return 0;
}

static int claim_exe(const char *path)
{
	struct prctl_mm_map map = { 0 };
	int ret, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || unshare(CLONE_NEWUSER))
		return -errno;
	ret = read_mm_map(&map);
	if (!ret)
		ret = drop_mappings_of_self();
	if (ret)
		return ret;
	map.exe_fd = fd;
	return result(prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0));
}

static int obey(char *line)
{
	char *word[4] = { NULL };
	struct target target;
	form_fn *run;

	line[strcspn(line, "\n")] = 0;
	word[0] = strsep(&line, " ");
	for (int i = 1; i < 4 && line; i++)
		word[i] = strsep(&line, " ");
	if (!word[1])
		return -EINVAL;
	if (!strcmp(word[0], "setuid"))
		return become(word[1]);
	if (!strcmp(word[0], "comm"))
		return result(prctl(PR_SET_NAME, word[1]));
	if (!strcmp(word[0], "argv"))
		return lie_in_argv(word[1]);
	if (!strcmp(word[0], "exe"))
		return claim_exe(word[1]);
	run = find_form(word[0]);
	if (!run || !word[2] || !make_target(&target, word[1], word[2]))
		return -EINVAL;
	target.via = word[3] ? atoi(word[3]) : 0;
	return run(&target);
}

int converse(int argc, char **argv)
{
	static char line[PATH_MAX];

	own_argv0 = argv[0];
	(void)argc;
	while (fgets(line, sizeof(line), stdin)) {
		int ret = obey(line);

		puts(ret ? strerrorname_np(-ret) : "OK");
		fflush(stdout);
	}
	return 0;
}
