/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sockets that were there before the hooks: each one, for each process that
 * holds it, whatever its network namespace. What becomes of them is decided
 * elsewhere, by decide().
 */
#ifndef AEGIS_EXISTING_BPF_H
#define AEGIS_EXISTING_BPF_H

#include "owner.bpf.h"

enum { BINDPORT_LOCK = 8 };		/* SOCK_BINDPORT_LOCK, include/net/sock.h */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ipv6_pinfo {
	int mcast_oif;
};

struct inet_sock {
	struct ipv6_pinfo *pinet6;
	int mc_index;
};

#pragma clang attribute pop

/*
 * Who called whom is kept nowhere, but tcp_v[46]_syn_recv_sock() leaves in a new child
 * the interface its SYN came by, in a field of multicast. Nothing else writes that field
 * in a TCP socket: setsockopt() refuses.
 */
static __always_inline bool was_accepted(struct sock *sk, __u16 family)
{
	struct inet_sock *inet = (void *)sk;

	/* A kernel that renames them must not keep everything else from loading. */
	if (!bpf_core_field_exists(inet->mc_index) ||
	    !bpf_core_field_exists(struct ipv6_pinfo, mcast_oif))
		return false;
	return family == AF_INET ? BPF_CORE_READ(inet, mc_index) :
				   BPF_CORE_READ(inet, pinet6, mcast_oif);
}

static __always_inline void fill_addresses(struct aegis_held *held, struct sock *sk)
{
	__u32 local[4] = {}, remote[4] = {};

	held->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (held->family == AF_INET) {
		local[2] = remote[2] = bpf_htonl(0xffff);
		local[3] = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		remote[3] = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&local, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32);
		BPF_CORE_READ_INTO(&remote, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32);
	}
	__builtin_memcpy(held->local_addr, local, sizeof(local));
	__builtin_memcpy(held->remote_addr, remote, sizeof(remote));
	held->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	held->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/* The connection below: MPTCP's own socket has no bucket, and cannot be destroyed. */
static __always_inline struct sock *carrier(struct sock *sk)
{
	struct mptcp_sock *mptcp = (void *)sk;

	if (!bpf_core_type_exists(struct mptcp_sock))
		return sk;
	return BPF_CORE_READ(mptcp, first);
}

static __always_inline void fill_socket(struct aegis_held *held, struct sock *sk)
{
	held->carrier = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	held->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	held->device = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	held->bound = !!(BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & BINDPORT_LOCK);
	fill_addresses(held, sk);
	held->accepted = held->protocol == AEGIS_PROTOCOL_TCP && was_accepted(sk, held->family);
}

SEC("iter/task_file")
int aegis_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct aegis_held held = {};
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk || !is_inet(socket->sk) || !is_governed(socket->sk))
		return 0;
	sk = socket->sk;
	held.cookie = bpf_get_socket_cookie(sk);
	held.protocol = protocol_of(sk->sk_protocol);
	held.state = sk->__sk_common.skc_state;
	if (held.protocol != AEGIS_PROTOCOL_TCP && held.protocol != AEGIS_PROTOCOL_UDP)
		return 0;
	if (sk->sk_protocol == AEGIS_PROTOCOL_MPTCP)
		sk = carrier(sk);
	if (!sk)
		return 0;
	fill_socket(&held, sk);
	held.start_boot_ns = start_of(task);
	/* Read, it is a number: a typed pointer is not taken for one. */
	fill_owner(&held.owner, BPF_CORE_READ(task, group_leader));
	bpf_seq_write(ctx->meta->seq, &held, sizeof(held));
	return 0;
}

#endif
