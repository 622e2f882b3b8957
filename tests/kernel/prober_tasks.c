/* SPDX-License-Identifier: Apache-2.0 */
/* The same TCP connect, made by another thread or process of the program. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prober.h"

struct errand {
	const struct target *target;
	int ret;
};

static void *connect_thread(void *arg)
{
	struct errand *errand = arg;

	errand->ret = form_tcp(errand->target);
	return NULL;
}

int run_thread(const struct target *target)
{
	struct errand errand = { .target = target };
	pthread_t thread;
	int err = pthread_create(&thread, NULL, connect_thread, &errand);

	if (err)
		return -err;
	pthread_join(thread, NULL);
	return errand.ret;
}

/* Children exit with their errno. */
static int reap(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

int run_fork(const struct target *target)
{
	pid_t pid = fork();

	if (!pid)
		_exit(-form_tcp(target));
	return reap(pid);
}

/* A daemon's way: a grandchild in a session of its own, whose parent is gone. */
int run_orphan(const struct target *target)
{
	int report[2], ret = 0;
	pid_t pid;

	if (pipe(report))
		return -errno;
	pid = fork();
	if (!pid) {
		setsid();
		if (fork())
			_exit(0);
		while (getppid() == pid)
			usleep(1000);
		ret = form_tcp(target);
		_exit(write(report[1], &ret, sizeof(ret)) != sizeof(ret));
	}
	close(report[1]);
	reap(pid);
	if (read(report[0], &ret, sizeof(ret)) != sizeof(ret))
		ret = -EINTR;	/* killed before it could tell */
	close(report[0]);
	return ret;
}

static char *const *child_argv(const struct target *target)
{
	static char port[8];
	static char *argv[6];

	snprintf(port, sizeof(port), "%u", target->port);
	argv[0] = self_path;
	argv[1] = "-e";
	argv[2] = "tcp";
	argv[3] = (char *)target->address;
	argv[4] = port;
	return argv;
}

/* In the parent's memory, as a process of its own. */
int run_vfork(const struct target *target)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(-form_tcp(target));
	return reap(pid);
}

int run_vfork_exec(const struct target *target)
{
	char *const *argv = child_argv(target);
	pid_t pid = vfork();

	if (!pid) {
		execv(self_path, argv);
		_exit(ENOEXEC);
	}
	return reap(pid);
}

static void *exec_thread(void *arg)
{
	execv(self_path, (char *const *)arg);
	_exit(ENOEXEC);
}

/* Not the leader execs: it takes the leader's place and number. */
int run_exec_in_thread(const struct target *target)
{
	char *const *argv = child_argv(target);
	pthread_t thread;
	pid_t pid = fork();

	if (!pid) {
		if (pthread_create(&thread, NULL, exec_thread, (void *)argv))
			_exit(EAGAIN);
		pause();
		_exit(EINTR);
	}
	return reap(pid);
}

static void *connect_until_refused_no_more(void *arg)
{
	const struct target *target = arg;
	int ret;

	do
		ret = form_tcp(target);
	while (ret == -EPERM);
	_exit(-ret);
}

/*
 * One thread connects without end while another executes FILE-after, where FILE is
 * this program, which tries port @target->via. EPERM: neither got out, ever.
 */
int run_exec_race(const struct target *target)
{
	char after[PATH_MAX + 8], port[8];
	char *const argv[] = { after, "-e", "tcp", (char *)target->address, port, NULL };
	pthread_t thread;
	pid_t pid;

	snprintf(after, sizeof(after), "%s-after", self_path);
	snprintf(port, sizeof(port), "%u", target->via);
	pid = fork();
	if (!pid) {
		if (pthread_create(&thread, NULL, connect_until_refused_no_more, (void *)target))
			_exit(EAGAIN);
		usleep(rand() % 300);
		execv(after, argv);
		_exit(ENOEXEC);
	}
	return reap(pid);
}
