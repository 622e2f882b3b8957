/* SPDX-License-Identifier: Apache-2.0 */
/* The one thing of sock_diag(7) that Python 3.11 cannot do: enter a network namespace. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "shim.h"

int aegis_diag_socket(int netns_fd)
{
	/* A netlink socket stays in the namespace it was made in; this thread comes back. */
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd;

	if (home < 0)
		return -errno;
	if (setns(netns_fd, CLONE_NEWNET)) {
		fd = -errno;
		close(home);
		return fd;
	}
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		fd = -errno;
	if (setns(home, CLONE_NEWNET))
		abort();		/* an agent in a foreign namespace is of no use */
	close(home);
	return fd;
}
