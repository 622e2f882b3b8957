/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prober FORM ADDRESS PORT [COUNT [VIA]]   tries COUNT times, a line for each:
 *	OK or the errno's name. Exit: 0 it went out, 1 refused (EPERM), 2 usage
 *	or a form this address family or kernel does not have.
 * prober -e FORM ADDRESS PORT   prints nothing, exits with the errno.
 * prober flood ADDRESS PORT COUNT THREADS [SPREAD]   see prober_flood.c
 * prober steady ADDRESS ALLOWED DENIED   see prober_steady.c
 * prober give HOW DOER ADDRESS PORT   see prober_given.c
 * prober witness FILE HOW ADDRESS PORT   see prober_witness.c
 * prober -   takes commands on stdin, see prober_talk.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "prober.h"

char self_path[PATH_MAX];

int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

bool make_target(struct target *target, const char *address, const char *port)
{
	char *end;
	long number = strtol(port, &end, 10);

	if (*end || end == port || number < 0 || number > 65535)
		return false;
	memset(target, 0, sizeof(*target));
	target->address = address;
	target->port = number;
	if (inet_pton(AF_INET, address, &target->addr.v4.sin_addr) == 1) {
		target->addr.v4.sin_family = AF_INET;
		target->addr.v4.sin_port = htons(number);
		target->len = sizeof(target->addr.v4);
		return true;
	}
	if (inet_pton(AF_INET6, address, &target->addr.v6.sin6_addr) != 1)
		return false;
	target->addr.v6.sin6_family = AF_INET6;
	target->addr.v6.sin6_port = htons(number);
	target->len = sizeof(target->addr.v6);
	return true;
}

/* A blackholed attempt must end: connect() gives EINPROGRESS after 3 s. */
int open_socket(const struct target *target, int type, int protocol)
{
	struct timeval limit = { .tv_sec = 3 };
	int fd = socket(target->addr.any.sa_family, type | SOCK_CLOEXEC, protocol);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

int finish(int fd, int ret)
{
	close(fd);
	return ret;
}

int form_tcp(const struct target *target)
{
	int fd = open_socket(target, SOCK_STREAM, 0);

	if (fd < 0)
		return -errno;
	return finish(fd, result(connect(fd, &target->addr.any, target->len)));
}

static bool map_target(struct target *mapped, const struct target *target)
{
	char text[INET6_ADDRSTRLEN], port[8];

	if (target->addr.any.sa_family != AF_INET)
		return false;
	snprintf(text, sizeof(text), "::ffff:%s", target->address);
	snprintf(port, sizeof(port), "%u", target->port);
	return make_target(mapped, text, port);
}

static int tcp_mapped(const struct target *target)
{
	struct target mapped;

	return map_target(&mapped, target) ? form_tcp(&mapped) : -EAFNOSUPPORT;
}

static int udp_connect(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0), ret;

	if (fd < 0)
		return -errno;
	ret = result(connect(fd, &target->addr.any, target->len));
	if (!ret)
		ret = result(send(fd, "probe", 5, 0));
	return finish(fd, ret);
}

int send_to(int fd, const struct target *target)
{
	return result(sendto(fd, "probe", 5, 0, &target->addr.any, target->len));
}

static int udp_send(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0);

	return fd < 0 ? -errno : finish(fd, send_to(fd, target));
}

static int udp_mapped(const struct target *target)
{
	struct target mapped;

	return map_target(&mapped, target) ? udp_send(&mapped) : -EAFNOSUPPORT;
}

static struct msghdr message(const struct target *target, struct iovec *iov)
{
	*iov = (struct iovec){ .iov_base = "probe", .iov_len = 5 };
	return (struct msghdr){
		.msg_name = (void *)&target->addr,
		.msg_namelen = target->len,
		.msg_iov = iov,
		.msg_iovlen = 1,
	};
}

static int udp_sendmsg(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0);
	struct iovec iov;
	struct msghdr msg = message(target, &iov);

	return fd < 0 ? -errno : finish(fd, result(sendmsg(fd, &msg, 0)));
}

static int udp_sendmmsg(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0);
	struct iovec iov;
	struct mmsghdr batch[2] = { { .msg_hdr = message(target, &iov) } };

	batch[1] = batch[0];
	return fd < 0 ? -errno : finish(fd, result(sendmmsg(fd, batch, 2, 0)));
}

/* Connect @fd to the same address, port @target->via. */
static int connect_via(int fd, const struct target *target)
{
	struct target via = *target;

	if (via.addr.any.sa_family == AF_INET)
		via.addr.v4.sin_port = htons(target->via);
	else
		via.addr.v6.sin6_port = htons(target->via);
	return result(connect(fd, &via.addr.any, via.len));
}

static int udp_connected_other(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0), ret;

	if (fd < 0)
		return -errno;
	ret = connect_via(fd, target);
	return finish(fd, ret ? ret : send_to(fd, target));
}

/* An IPv4 socket takes AF_UNSPEC for AF_INET; an IPv6 one wants a destination. */
static int udp_unspec(const struct target *target)
{
	struct target unspec = *target;

	if (target->addr.any.sa_family != AF_INET)
		return -EAFNOSUPPORT;
	unspec.addr.any.sa_family = AF_UNSPEC;
	int fd = open_socket(target, SOCK_DGRAM, 0);

	return fd < 0 ? -errno : finish(fd, send_to(fd, &unspec));
}

static int udp_reconnect(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0), ret;
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	if (fd < 0)
		return -errno;
	ret = connect_via(fd, target);
	if (!ret)
		ret = result(connect(fd, &none, sizeof(none)));
	if (!ret)
		ret = result(connect(fd, &target->addr.any, target->len));
	if (!ret)
		ret = result(send(fd, "probe", 5, 0));
	return finish(fd, ret);
}

static int fastopen(const struct target *target)
{
	int fd = open_socket(target, SOCK_STREAM, 0);

	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, "probe", 5, MSG_FASTOPEN, &target->addr.any,
					target->len)));
}

static int fastopen_connect(const struct target *target)
{
	int fd = open_socket(target, SOCK_STREAM, 0), on = 1, ret;

	if (fd < 0)
		return -errno;
	ret = result(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)));
	if (!ret)
		ret = result(connect(fd, &target->addr.any, target->len));
	if (!ret)
		ret = result(send(fd, "probe", 5, MSG_NOSIGNAL));
	return finish(fd, ret);
}

const struct form forms[] = {
	{ "tcp", form_tcp },
	{ "tcp-mapped", tcp_mapped },
	{ "udp-connect", udp_connect },
	{ "udp-send", udp_send },
	{ "udp-mapped", udp_mapped },
	{ "udp-sendmsg", udp_sendmsg },
	{ "udp-sendmmsg", udp_sendmmsg },
	{ "udp-connected-other", udp_connected_other },
	{ "udp-unspec", udp_unspec },
	{ "udp-reconnect", udp_reconnect },
	{ "fastopen", fastopen },
	{ "fastopen-connect", fastopen_connect },
	{ "uring-connect", uring_connect },
	{ "uring-async", uring_async },
	{ "uring-sqpoll", uring_sqpoll },
	{ "uring-sendmsg", uring_sendmsg },
	{ "uring-send-zc", uring_send_zc },
	{ "thread", run_thread },
	{ "fork", run_fork },
	{ "orphan", run_orphan },
	{ "vfork-exec", run_vfork_exec },
	{ "vfork", run_vfork },
	{ "exec-in-thread", run_exec_in_thread },
	{ "exec-race", run_exec_race },
	{ "mptcp", mptcp },
	{ "mptcp-fastopen", mptcp_fastopen },
	{ "mptcp-subflow", mptcp_subflow },
	{ "udplite-connect", udplite_connect },
	{ "udplite-send", udplite_send },
	{ "sctp-connect", sctp_connect },
	{ "sctp-send", sctp_send },
	{ "sctp-connectx", sctp_connectx },
	{ "dccp", dccp },
	{ "raw-send", raw_send },
	{ "raw-connect", raw_connect },
	{ "raw-header", raw_header },
	{ "raw-icmp", raw_icmp },
	{ "ping", ping },
	{ "l2tp", l2tp },
	{ "packet", packet },
	{ "xdp", xdp },
	{ "tun", tun },
	{ "vsock", vsock },
	{ "use-inherited", use_inherited },
	{ "use-rights", use_rights },
	{ "use-pidfd", use_pidfd },
	{ "use-listening", use_listening },
	{ "listen-tcp", listen_tcp },
	{ "listen-mptcp", listen_mptcp },
	{ "listen-sctp", listen_sctp },
	{ "listen-unbound", listen_unbound },
	{ "receive-udp", receive_udp },
	{ "answer-udp", answer_udp },
	{ NULL, NULL },
};

form_fn *find_form(const char *name)
{
	for (const struct form *form = forms; form->name; form++)
		if (!strcmp(form->name, name))
			return form->run;
	return NULL;
}

static int usage(void)
{
	fprintf(stderr, "usage: prober FORM ADDRESS PORT [COUNT [VIA]]\nforms:");
	for (const struct form *form = forms; form->name; form++)
		fprintf(stderr, " %s", form->name);
	fprintf(stderr, " flood give -\n");
	return 2;
}

static int exit_code(int ret)
{
	switch (-ret) {
	case EPERM:
		return 1;
	case EAFNOSUPPORT:
	case EOPNOTSUPP:
	case ENOSYS:
		return 2;
	default:	/* a refusal by the peer or a missing route: it went out */
		return 0;
	}
}

int main(int argc, char **argv)
{
	bool quiet = argc > 1 && !strcmp(argv[1], "-e");
	struct target target;
	form_fn *run;
	int ret = 0;

	/* Empty in a chroot without /proc: then only the exec forms do not work. */
	if (readlink("/proc/self/exe", self_path, sizeof(self_path) - 1) < 0)
		self_path[0] = 0;
	if (argc > 1 && !strcmp(argv[1], "flood"))
		return flood(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "steady"))
		return steady(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "give"))
		return give(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "witness"))
		return witness(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "-"))
		return converse(argc, argv);
	argv += quiet;
	argc -= quiet;
	if (argc < 4 || argc > 6 || !make_target(&target, argv[2], argv[3]))
		return usage();
	run = find_form(argv[1]);
	if (!run)
		return usage();
	target.via = argc > 5 ? atoi(argv[5]) : 0;
	for (int left = argc > 4 ? atoi(argv[4]) : 1; left > 0; left--) {
		ret = run(&target);
		if (!quiet)
			puts(ret ? strerrorname_np(-ret) : "OK");
		fflush(stdout);
	}
	return quiet ? -ret : exit_code(ret);
}
