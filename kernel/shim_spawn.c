/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that is born in a cgroup: Python can only move one that runs already,
 * and by then it may have forked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "shim.h"

enum stage { STAGE_PROGRAM, STAGE_CGROUP };

struct failure {
	int error;
	enum stage stage;
};

/*
 * In the child, a copy of one thread of many: only what is safe in a signal handler.
 * setuid() and its like are asked of the kernel: glibc's wait for threads that are not here.
 */
static enum stage become(const struct aegis_spawn *spawn, bool born_inside)
{
	sigset_t none;
	int in, out, signal_;

	if (spawn->cgroup_fd >= 0 && !born_inside) {
		int procs = openat(spawn->cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);

		if (procs < 0 || write(procs, "0", 1) != 1)
			return STAGE_CGROUP;
	}
	for (signal_ = 1; signal_ < _NSIG; signal_++)
		signal(signal_, SIG_DFL);
	sigemptyset(&none);
	in = fcntl(spawn->in, F_DUPFD_CLOEXEC, 3);
	out = fcntl(spawn->out, F_DUPFD_CLOEXEC, 3);
	if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		return STAGE_PROGRAM;
	if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC))
		return STAGE_PROGRAM;
	if (spawn->keep >= 0 && fcntl(spawn->keep, F_SETFD, 0))
		return STAGE_PROGRAM;
	umask(077);
	if (chdir("/") || setsid() < 0)
		return STAGE_PROGRAM;
	if (spawn->as_user &&
	    (syscall(SYS_setgroups, spawn->groups_count, spawn->groups) ||
	     syscall(SYS_setresgid, spawn->gid, spawn->gid, spawn->gid) ||
	     syscall(SYS_setresuid, spawn->uid, spawn->uid, spawn->uid)))
		return STAGE_PROGRAM;
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(spawn->path, spawn->argv, spawn->envp);
	return STAGE_PROGRAM;
}

/* clone3() into the cgroup takes no lock that waits for RCU; a service may not be let use it. */
static pid_t fork_into(int cgroup_fd, bool *inside)
{
	struct clone_args arguments = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = cgroup_fd,
	};
	pid_t pid = -1;

	if (cgroup_fd >= 0)
		pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
	*inside = pid >= 0;
	return *inside ? pid : fork();
}

static int start(const struct aegis_spawn *spawn, const int report[2], bool *no_cgroup)
{
	struct failure failure;
	bool inside;
	ssize_t size;
	pid_t pid = fork_into(spawn->cgroup_fd, &inside);

	if (!pid) {
		failure.stage = become(spawn, inside);
		failure.error = errno;
		size = write(report[1], &failure, sizeof(failure));
		_exit(127 + (size < 0));
	}
	close(report[1]);
	if (pid < 0)
		return -EAGAIN;
	do
		size = read(report[0], &failure, sizeof(failure));
	while (size < 0 && errno == EINTR);
	if (!size)
		return pid;	/* exec closed it */
	waitpid(pid, NULL, 0);
	if (size != sizeof(failure))
		return -EIO;
	*no_cgroup = failure.stage == STAGE_CGROUP;
	return -failure.error;
}

int aegis_spawn(const struct aegis_spawn *spawn, int *no_cgroup)
{
	sigset_t all, before;
	bool cgroup_failed = false;
	int report[2], pid;

	if (pipe2(report, O_CLOEXEC))
		return -errno;
	/* A handler of ours must not run in the child. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = start(spawn, report, &cgroup_failed);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	close(report[0]);
	if (pid < 0)
		*no_cgroup = cgroup_failed;
	return pid;
}
