/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prober give HOW DOER ADDRESS PORT   makes a socket and lets the program DOER use it:
 *	inherited	connected; DOER was born with it
 *	rights		connected; sent to DOER over a Unix socket
 *	pidfd		connected; DOER takes it out of this process
 *	listening	bound and listening; DOER was born with it, as by socket activation
 * Exits as DOER does, which says how it went.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prober.h"

enum { GIVEN = 3 };	/* the descriptor's number, on both sides */

struct passing {
	struct msghdr msg;
	struct iovec iov;
	char byte;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
};

static void prepare(struct passing *passing)
{
	memset(passing, 0, sizeof(*passing));
	passing->iov = (struct iovec){ .iov_base = &passing->byte, .iov_len = 1 };
	passing->msg.msg_iov = &passing->iov;
	passing->msg.msg_iovlen = 1;
	passing->msg.msg_control = &passing->control;
	passing->msg.msg_controllen = sizeof(passing->control);
}

static int send_rights(int channel, int fd)
{
	struct passing passing;

	prepare(&passing);
	passing.control.header.cmsg_level = SOL_SOCKET;
	passing.control.header.cmsg_type = SCM_RIGHTS;
	passing.control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&passing.control.header), &fd, sizeof(fd));
	return result(sendmsg(channel, &passing.msg, 0));
}

static int make_socket(const struct target *target, bool listening)
{
	int fd = open_socket(target, SOCK_STREAM, 0), ret;

	if (fd < 0)
		return -errno;
	ret = listening ? listen_on(fd, target) :
			  result(connect(fd, &target->addr.any, target->len));
	return ret ? ret : fd;
}

static void become_doer(char **argv, const char *how, int fd)
{
	char form[32];

	snprintf(form, sizeof(form), "use-%s", how);
	if (fd < 0)
		close(GIVEN);
	else
		dup2(fd, GIVEN);
	execl(argv[3], argv[3], form, argv[4], argv[5], NULL);
	_exit(ENOEXEC);
}

int give(int argc, char **argv)
{
	int pair[2], fd, status, mine;
	struct target target;
	const char *how;
	pid_t pid;

	if (argc != 6 || !make_target(&target, argv[4], argv[5]))
		return EINVAL;
	how = argv[2];
	fd = make_socket(&target, !strcmp(how, "listening"));
	if (fd < 0)
		return -fd;
	/* Out of the way of GIVEN, which is then this process's copy. */
	mine = dup2(fd, 9);
	if (mine < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return errno;
	dup2(mine, GIVEN);
	pid = fork();
	if (!pid)
		become_doer(argv, how, !strcmp(how, "rights") ? pair[1] :
				       !strcmp(how, "pidfd") ? -1 : mine);
	if (!strcmp(how, "rights"))
		send_rights(pair[0], mine);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return errno;
	if (WIFSIGNALED(status))
		raise(WTERMSIG(status));
	return WEXITSTATUS(status);
}

int use_inherited(const struct target *target)
{
	(void)target;
	return result(send(GIVEN, "probe", 5, MSG_NOSIGNAL));
}

int use_rights(const struct target *target)
{
	struct passing passing;
	int fd = -1;

	(void)target;
	prepare(&passing);
	if (recvmsg(GIVEN, &passing.msg, MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	if (passing.msg.msg_controllen < sizeof(passing.control.header))
		return -EBADF;		/* the kernel kept the descriptor */
	memcpy(&fd, CMSG_DATA(&passing.control.header), sizeof(fd));
	return finish(fd, result(send(fd, "probe", 5, MSG_NOSIGNAL)));
}

int use_pidfd(const struct target *target)
{
	int process = syscall(SYS_pidfd_open, getppid(), 0), fd;

	(void)target;
	if (process < 0)
		return -errno;
	fd = syscall(SYS_pidfd_getfd, process, GIVEN, 0);
	if (fd < 0)
		return -errno;
	return finish(fd, result(send(fd, "probe", 5, MSG_NOSIGNAL)));
}

int use_listening(const struct target *target)
{
	(void)target;
	return accept_one(GIVEN);
}
