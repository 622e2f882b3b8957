/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transports that are neither TCP nor UDP. What has no ports of its own carries
 * the target's port where the tap looks for it (tap.py).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/dccp.h>
#include <linux/l2tp.h>
#include <linux/mptcp.h>
#include <linux/sctp.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <unistd.h>

#include "prober.h"

#ifndef SOL_MPTCP
#define SOL_MPTCP 284
#endif

enum {
	PROTOCOL_L2TP = 115,
	PROTOCOL_EXPERIMENT = 253,	/* RFC 3692: nobody answers */
	WAIT_FOR_SUBFLOW_MS = 20000,	/* or for its end: killed by the agent, later if that must wait */
};

struct bare {			/* the port where TCP and UDP have theirs */
	uint16_t zero;
	uint16_t port;
	char text[5];
};

static struct bare bare(const struct target *target)
{
	struct bare packet = { .port = htons(target->port) };

	memcpy(packet.text, "probe", sizeof(packet.text));
	return packet;
}

static int connect_and_send(const struct target *target, int type, int protocol)
{
	int fd = open_socket(target, type, protocol), ret;

	if (fd < 0)
		return -errno;
	ret = result(connect(fd, &target->addr.any, target->len));
	if (!ret)
		ret = result(send(fd, "probe", 5, MSG_NOSIGNAL));
	return finish(fd, ret);
}

int mptcp(const struct target *target)
{
	return connect_and_send(target, SOCK_STREAM, IPPROTO_MPTCP);
}

/* Since 6.2; before, the kernel sends nothing and says so. */
int mptcp_fastopen(const struct target *target)
{
	int fd = open_socket(target, SOCK_STREAM, IPPROTO_MPTCP);

	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, "probe", 5, MSG_FASTOPEN, &target->addr.any,
					target->len)));
}

/* Until the peer has announced its other address and the kernel has gone there, or not. */
int mptcp_subflow(const struct target *target)
{
	int fd = open_socket(target, SOCK_STREAM, IPPROTO_MPTCP), ret;
	struct mptcp_info info = { 0 };
	socklen_t size = sizeof(info);

	if (fd < 0)
		return -errno;
	ret = result(connect(fd, &target->addr.any, target->len));
	if (!ret)
		ret = result(send(fd, "probe", 5, MSG_NOSIGNAL));
	for (int waited = 0; !ret && waited < WAIT_FOR_SUBFLOW_MS; waited += 10) {
		if (getsockopt(fd, SOL_MPTCP, MPTCP_INFO, &info, &size) || info.mptcpi_subflows)
			break;
		usleep(10000);
	}
	return finish(fd, ret);
}

int udplite_connect(const struct target *target)
{
	return connect_and_send(target, SOCK_DGRAM, IPPROTO_UDPLITE);
}

static int send_to_protocol(const struct target *target, int type, int protocol)
{
	int fd = open_socket(target, type, protocol);

	return fd < 0 ? -errno : finish(fd, send_to(fd, target));
}

int udplite_send(const struct target *target)
{
	return send_to_protocol(target, SOCK_DGRAM, IPPROTO_UDPLITE);
}

int sctp_connect(const struct target *target)
{
	return connect_and_send(target, SOCK_STREAM, IPPROTO_SCTP);
}

int sctp_send(const struct target *target)
{
	return send_to_protocol(target, SOCK_SEQPACKET, IPPROTO_SCTP);
}

int sctp_connectx(const struct target *target)
{
	int fd = open_socket(target, SOCK_STREAM, IPPROTO_SCTP);

	if (fd < 0)
		return -errno;
	return finish(fd, result(setsockopt(fd, IPPROTO_SCTP, SCTP_SOCKOPT_CONNECTX,
					    &target->addr, target->len)));
}

int dccp(const struct target *target)
{
	int fd = open_socket(target, SOCK_DCCP, IPPROTO_DCCP), ret;
	uint32_t service = htonl(42);

	if (fd < 0)
		return -errno;
	ret = result(setsockopt(fd, SOL_DCCP, DCCP_SOCKOPT_SERVICE, &service, sizeof(service)));
	if (!ret)
		ret = result(connect(fd, &target->addr.any, target->len));
	return finish(fd, ret);
}

static struct target without_port(const struct target *target)
{
	struct target bare = *target;

	if (bare.addr.any.sa_family == AF_INET)
		bare.addr.v4.sin_port = 0;
	else
		bare.addr.v6.sin6_port = 0;	/* a raw socket takes it for the protocol */
	return bare;
}

int raw_send(const struct target *target)
{
	struct target to = without_port(target);
	struct bare packet = bare(target);
	int fd = open_socket(target, SOCK_RAW, PROTOCOL_EXPERIMENT);

	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, &packet, sizeof(packet), 0, &to.addr.any, to.len)));
}

int raw_connect(const struct target *target)
{
	struct target to = without_port(target);
	struct bare packet = bare(target);
	int fd = open_socket(target, SOCK_RAW, PROTOCOL_EXPERIMENT), ret;

	if (fd < 0)
		return -errno;
	ret = result(connect(fd, &to.addr.any, to.len));
	if (!ret)
		ret = result(send(fd, &packet, sizeof(packet), 0));
	return finish(fd, ret);
}

/* A whole datagram of UDP, written by the program itself. */
int raw_header(const struct target *target)
{
	struct target to = without_port(target);
	struct datagram datagram;
	int fd;

	if (!build_datagram(&datagram, target))
		return -EAFNOSUPPORT;
	fd = open_socket(target, SOCK_RAW, IPPROTO_RAW);
	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, &datagram, sizeof(datagram), 0, &to.addr.any, to.len)));
}

/* An echo request; the kernel sets the id of a ping socket, the number is ours. */
static int echo(const struct target *target, int type)
{
	struct icmphdr v4 = { .type = ICMP_ECHO, .un.echo.sequence = htons(target->port) };
	struct icmp6_hdr v6 = { .icmp6_type = ICMP6_ECHO_REQUEST };
	bool is_v4 = target->addr.any.sa_family == AF_INET;
	struct target to = without_port(target);
	int fd = open_socket(target, type, is_v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);

	v6.icmp6_seq = htons(target->port);
	/* Of a raw socket's ICMP the kernel leaves the checksum alone; the tap does not look. */
	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, is_v4 ? (void *)&v4 : &v6, 8, 0, &to.addr.any, to.len)));
}

int ping(const struct target *target)
{
	return echo(target, SOCK_DGRAM);
}

int raw_icmp(const struct target *target)
{
	return echo(target, SOCK_RAW);
}

int l2tp(const struct target *target)
{
	struct sockaddr_l2tpip to = { .l2tp_family = AF_INET };
	struct bare packet = bare(target);
	int fd;

	if (target->addr.any.sa_family != AF_INET)
		return -EAFNOSUPPORT;
	to.l2tp_addr = target->addr.v4.sin_addr;
	fd = open_socket(target, SOCK_DGRAM, PROTOCOL_L2TP);
	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, &packet, sizeof(packet), 0, (void *)&to, sizeof(to))));
}
