// SPDX-License-Identifier: Apache-2.0
/*
 * Capabilities of all threads at once. capset(2) is about the calling one only, and Python has
 * others: each is sent a signal, in whose handler it does the same.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "shim.h"

enum { WAIT_MS = 2000 };

static struct __user_cap_data_struct wanted[2];
static atomic_int answered;
static atomic_int failure;

static int set_own(const struct __user_cap_data_struct *data)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static int get_own(struct __user_cap_data_struct *data)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &header, data) ? -errno : 0;
}

static void follow(int number)
{
	int kept = errno, err = set_own(wanted);

	(void)number;
	if (err)
		atomic_store(&failure, err);
	atomic_fetch_add(&answered, 1);
	errno = kept;
}

/* Returns how many other threads were asked. */
static int ask_others(int number)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	int asked = 0;
	pid_t tid;

	if (!tasks)
		return -errno;
	while ((entry = readdir(tasks))) {
		tid = atoi(entry->d_name);
		if (tid > 0 && tid != gettid() && !syscall(SYS_tgkill, getpid(), tid, number))
			asked++;
	}
	closedir(tasks);
	return asked;
}

static int wait_for(int asked)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	int waited;

	for (waited = 0; waited < WAIT_MS; waited++) {
		if (atomic_load(&answered) >= asked)
			return 0;
		nanosleep(&pause, NULL);
	}
	return -ETIMEDOUT;
}

int aegis_set_rights(uint64_t rights)
{
	/* Not one of Python's, nor the ones glibc keeps to itself. */
	const int number = SIGRTMIN + 5;
	struct sigaction action = { .sa_handler = follow, .sa_flags = SA_RESTART };
	int round, asked, err;

	wanted[0].permitted = wanted[0].effective = rights;
	wanted[1].permitted = wanted[1].effective = rights >> 32;
	err = set_own(wanted);
	if (err)
		return err;
	if (sigaction(number, &action, NULL))
		return -errno;
	/* Twice: a thread that was not asked yet may have made another meanwhile. */
	for (round = 0; round < 2; round++) {
		atomic_store(&answered, 0);
		atomic_store(&failure, 0);
		asked = ask_others(number);
		if (asked < 0)
			return asked;
		err = wait_for(asked);
		if (err || atomic_load(&failure))
			return err ? err : atomic_load(&failure);
	}
	return 0;
}

int aegis_permitted_rights(uint64_t *permitted)
{
	struct __user_cap_data_struct data[2];
	int err = get_own(data);

	if (!err)
		*permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return err;
}

int aegis_hide_memory(int hidden)
{
	return prctl(PR_SET_DUMPABLE, !hidden) ? -errno : 0;
}
