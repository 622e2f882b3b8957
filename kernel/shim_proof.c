// SPDX-License-Identifier: Apache-2.0
/* A child that must be refused: see canary.bpf.h. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include "shim.h"

enum { NOT_READY = 255 };		/* no errno is that high */

/* Only what may be called between a fork of many threads and the end. */
static int be_refused(int procs_fd, int cgroup_fd)
{
	struct sockaddr_in nobody = {
		.sin_family = AF_INET,
		.sin_port = htons(1),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	uint32_t own = getpid();
	struct aegis_proc proc;
	int fd;

	if (cgroup_fd >= 0 && write(cgroup_fd, "0", 1) != 1)
		return NOT_READY;
	if (bpf_map_lookup_elem(procs_fd, &own, &proc))
		return NOT_READY;
	proc.flags |= AEGIS_ID_CANARY;
	if (bpf_map_update_elem(procs_fd, &own, &proc, BPF_EXIST))
		return NOT_READY;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return NOT_READY;
	/* Of UDP: even where nothing refuses it, nothing is sent. */
	return connect(fd, (struct sockaddr *)&nobody, sizeof(nobody)) ? errno : 0;
}

int aegis_prove(int procs_fd, int cgroup_fd, int *child)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(be_refused(procs_fd, cgroup_fd));
	*child = pid;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (!WIFEXITED(status) || WEXITSTATUS(status) == NOT_READY)
		return -ECHILD;
	return WEXITSTATUS(status);
}
