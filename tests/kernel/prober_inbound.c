/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other direction: this program waits. It says "ready PORT" once somebody
 * can come, and returns -EAGAIN when nobody came. Its standard input ends once
 * somebody has tried to.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "prober.h"

enum { WAIT_FOR_PEER_MS = 120000, UNDER_WAY_MS = 1000 };

static void say_ready(int fd)
{
	struct target own;
	socklen_t size = sizeof(own.addr);

	getsockname(fd, &own.addr.any, &size);
	/* In both families the port is at the same place. */
	printf("ready %u\n", ntohs(own.addr.v4.sin_port));
	fflush(stdout);
}

/* Not by SO_RCVTIMEO: accept() on an MPTCP socket does not mind it. */
static int wait_for_peer(int fd)
{
	struct pollfd any[] = { { .fd = fd, .events = POLLIN }, { .fd = STDIN_FILENO } };

	say_ready(fd);
	if (poll(any, 2, WAIT_FOR_PEER_MS) > 0 && !any[0].revents)
		poll(any, 1, UNDER_WAY_MS);
	return any[0].revents ? 0 : -EAGAIN;
}

/* Bound only if the target has a port. */
int listen_on(int fd, const struct target *target)
{
	int on = 1, ret = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (target->port)
		ret = result(bind(fd, &target->addr.any, target->len));
	return ret ? ret : result(listen(fd, 8));
}

int accept_one(int fd)
{
	int ret = wait_for_peer(fd);

	if (ret)
		return ret;
	fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
	return fd < 0 ? -errno : finish(fd, 0);
}

static int serve(const struct target *target, int protocol)
{
	int fd = open_socket(target, SOCK_STREAM, protocol), ret;

	if (fd < 0)
		return -errno;
	ret = listen_on(fd, target);
	return finish(fd, ret ? ret : accept_one(fd));
}

int listen_tcp(const struct target *target)
{
	return serve(target, 0);
}

int listen_mptcp(const struct target *target)
{
	return serve(target, IPPROTO_MPTCP);
}

int listen_sctp(const struct target *target)
{
	return serve(target, IPPROTO_SCTP);
}

/* The kernel chooses a port in listen(): no bind hook runs. */
int listen_unbound(const struct target *target)
{
	struct target unbound = *target;

	unbound.port = 0;
	return serve(&unbound, 0);
}

static int receive(const struct target *target, bool answers)
{
	int fd = open_socket(target, SOCK_DGRAM, 0), ret;
	struct target peer = { .len = sizeof(peer.addr) };
	char text[16];

	if (fd < 0)
		return -errno;
	ret = result(bind(fd, &target->addr.any, target->len));
	if (!ret)
		ret = wait_for_peer(fd);
	if (!ret)
		ret = result(recvfrom(fd, text, sizeof(text), MSG_DONTWAIT, &peer.addr.any,
				      &peer.len));
	if (!ret && answers)
		ret = send_to(fd, &peer);
	return finish(fd, ret);
}

int receive_udp(const struct target *target)
{
	return receive(target, false);
}

int answer_udp(const struct target *target)
{
	return receive(target, true);
}
