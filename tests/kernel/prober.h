/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that tries to reach an address in one named form. Every form
 * returns 0 when the kernel let it out, else the negative errno; -EAFNOSUPPORT
 * when the form does not exist for that address family.
 */
#ifndef PROBER_H
#define PROBER_H

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <sys/socket.h>

struct target {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} addr;
	socklen_t len;
	const char *address;	/* as written on the command line */
	unsigned short port;
	unsigned short via;	/* port a socket is connected to beforehand */
};

/* A whole IPv4 packet, for those who write it themselves. */
struct datagram {
	struct iphdr ip;
	struct udphdr udp;
	char text[5];
} __attribute__((packed));

typedef int form_fn(const struct target *target);

struct form {
	const char *name;
	form_fn *run;
};

extern const struct form forms[];

/* Absolute path of this program as it was executed: what a child execs. */
extern char self_path[];

int result(long ret);	/* ret < 0: -errno, else 0 */
bool make_target(struct target *target, const char *address, const char *port);
form_fn *find_form(const char *name);
int open_socket(const struct target *target, int type, int protocol);
int send_to(int fd, const struct target *target);
int finish(int fd, int ret);	/* close it, return *ret* */
bool build_datagram(struct datagram *datagram, const struct target *target);	/* IPv4 only */
int listen_on(int fd, const struct target *target);
int accept_one(int fd);

form_fn uring_connect, uring_async, uring_sqpoll, uring_sendmsg, uring_send_zc;
form_fn mptcp, mptcp_fastopen, mptcp_subflow, udplite_connect, udplite_send;
form_fn sctp_connect, sctp_send, sctp_connectx, dccp;
form_fn raw_send, raw_connect, raw_header, raw_icmp, ping, l2tp;
form_fn packet, xdp, tun, vsock;
form_fn use_inherited, use_rights, use_pidfd, use_listening;
form_fn listen_tcp, listen_mptcp, listen_sctp, listen_unbound, receive_udp, answer_udp;
form_fn run_thread, run_fork, run_orphan, run_vfork, run_vfork_exec, run_exec_in_thread;
form_fn run_exec_race;
form_fn form_tcp;

int flood(int argc, char **argv);
int steady(int argc, char **argv);
int give(int argc, char **argv);
int witness(int argc, char **argv);
int converse(int argc, char **argv);

#endif
