/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inbound: whose a bound socket is, and what may come to it. Packets come in
 * no process's name, so bind() and listen() leave the caller's identity with
 * the socket, by its cookie; judged is what was left there.
 *
 * bind() is where a port is refused; a packet of a peer that is not listed is
 * dropped before the socket gets it, so no handshake is ever completed.
 */
#ifndef AEGIS_INBOUND_BPF_H
#define AEGIS_INBOUND_BPF_H

#include "verdict.bpf.h"

/* *task* is the owner from now on; *proc* is what is known of it. */
static __always_inline void
give_socket(__u64 cookie, struct aegis_proc *proc, struct task_struct *task)
{
	struct aegis_owner owner = {};

	fill_owner(&owner, task);
	if (proc && !bpf_map_update_elem(&listeners, &cookie, proc, BPF_ANY) &&
	    !bpf_map_update_elem(&owners, &cookie, &owner, BPF_ANY))
		return;
	/* With a label but without an owner it is nobody's: nothing grants it anything. */
	bpf_map_delete_elem(&listeners, &cookie);
	bpf_map_delete_elem(&owners, &cookie);
	count(AEGIS_COUNTER_IDENTITY_LOST);
}

static __noinline int own_socket(__u64 cookie)
{
	give_socket(cookie, current_proc(), (void *)bpf_get_current_task());
	return 0;
}

static __always_inline struct aegis_label *label_socket(struct bpf_sock *sk, __u64 cookie)
{
	struct aegis_label *label;

	label = bpf_sk_storage_get(&labels, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!label) {
		count(AEGIS_COUNTER_IDENTITY_LOST);
		return NULL;
	}
	label->cookie = cookie;
	own_socket(cookie);
	return label;
}

/* Judge as *label*'s owner, count and tell. NULL config or owner cannot be. */
static __always_inline int
judge_packet(struct aegis_label *label, struct aegis_config *config, struct flow *flow,
	     bool only_blocked)
{
	struct aegis_proc *proc = bpf_map_lookup_elem(&listeners, &label->cookie);
	struct aegis_owner *owner = bpf_map_lookup_elem(&owners, &label->cookie);
	struct decision d = {};
	__u64 class_, zero = 0;

	if (!proc || !owner) {
		proc = nobody();
		owner = bpf_map_lookup_elem(&owners, &zero);
	}
	if (!proc || !owner) {
		count(AEGIS_COUNTER_DECIDED);
		return broken();
	}
	class_ = class_of(proc, owner, config);
	flow->direction = AEGIS_DIRECTION_IN;
	if (!aegis_decide(&d, config, class_, proc->flags, flow)) {
		count(AEGIS_COUNTER_DECIDED);
		return broken();
	}
	/* Each packet passes here, and once it did another hook counts and tells. */
	if (only_blocked && d.verdict != AEGIS_VERDICT_BLOCKED)
		return AEGIS_ALLOW;
	count(AEGIS_COUNTER_DECIDED);
	count_verdict(&d);
	if (d.report)
		aegis_report(proc, owner, config, &d, flow);
	return d.verdict == AEGIS_VERDICT_BLOCKED ? AEGIS_DENY : AEGIS_ALLOW;
}

/* ---- bind() ---- */

static __always_inline int bind_verdict(struct bpf_sock_addr *ctx, bool is_v6)
{
	struct flow flow = { .hook = AEGIS_HOOK_BIND, .direction = AEGIS_DIRECTION_IN };
	struct aegis_config *config = current_config();
	struct aegis_proc *proc = current_proc();
	__u64 cookie = bpf_get_socket_cookie(ctx), class_;
	struct decision d = {};

	if (!config || !proc)
		return AEGIS_DENY;
	flow.port = bpf_ntohs(ctx->user_port);
	flow.protocol = protocol_of(ctx->protocol);
	if (is_v6)
		copy_v6(flow.rest_addr, ctx->user_ip6);
	else
		set_v4(flow.rest_addr, ctx->user_ip4);
	if (flow.port) {		/* else the kernel chooses one */
		class_ = class_of(proc, NULL, config);
		count(AEGIS_COUNTER_DECIDED);
		if (!aegis_decide(&d, config, class_, proc->flags, &flow))
			return broken();
		/* What is not refused is told by listen(), or when somebody comes. */
		if (d.verdict == AEGIS_VERDICT_ALLOWED)
			d.report = 0;
		count_verdict(&d);
		if (d.report)
			aegis_report(proc, NULL, config, &d, &flow);
		if (d.verdict == AEGIS_VERDICT_BLOCKED)
			return AEGIS_DENY;
	}
	return ctx->sk && label_socket(ctx->sk, cookie) ? AEGIS_ALLOW : AEGIS_DENY;
}

SEC("cgroup/bind4")
int aegis_bind4(struct bpf_sock_addr *ctx)
{
	return bind_verdict(ctx, false);
}

SEC("cgroup/bind6")
int aegis_bind6(struct bpf_sock_addr *ctx)
{
	return bind_verdict(ctx, true);
}

/* ---- TCP: listen() and a peer's handshake ---- */

static __always_inline void parse_socket(struct flow *flow, struct bpf_sock_ops *ctx)
{
	flow->protocol = AEGIS_PROTOCOL_TCP;
	flow->port = ctx->local_port;
	flow->rest_port = bpf_ntohl(ctx->remote_port);
	/* Not in two branches: clang would make one read of both, at a variable offset. */
	copy_v6(flow->addr, ctx->remote_ip6);
	copy_v6(flow->rest_addr, ctx->local_ip6);
	if (ctx->family != AF_INET)
		return;
	flow->addr[0] = flow->addr[1] = flow->rest_addr[0] = flow->rest_addr[1] = 0;
	set_v4(flow->addr, ctx->remote_ip4);
	set_v4(flow->rest_addr, ctx->local_ip4);
}

SEC("sockops")
int aegis_sockops(struct bpf_sock_ops *ctx)
{
	struct aegis_label *label;
	struct aegis_config *config;
	struct flow flow = {};
	struct bpf_sock *sk;

	/* The reply stays as it is: another program may have set it. */
	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB)
		flow.hook = AEGIS_HOOK_LISTEN;
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		flow.hook = AEGIS_HOOK_ACCEPT;
	else
		return 1;
	config = current_config();
	sk = ctx->sk;
	if (!config || !sk)
		return 1;
	if (flow.hook == AEGIS_HOOK_LISTEN)
		label = label_socket(sk, bpf_get_socket_cookie(ctx));
	else
		label = bpf_sk_storage_get(&labels, sk, NULL, 0);
	if (!label)
		return 1;
	parse_socket(&flow, ctx);
	judge_packet(label, config, &flow, false);
	return 1;
}

/* ---- packets, while some rule may refuse one ---- */

/* False: cut short. Options and extension headers are skipped for the peer's port, or it is 0. */
static __always_inline bool parse_packet(struct flow *flow, struct __sk_buff *skb)
{
	__u32 at = 40;
	__u16 port = 0;
	__u8 first;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &first, 1) ||
		    bpf_skb_load_bytes(skb, 12, &flow->addr[3], 4) ||
		    bpf_skb_load_bytes(skb, 16, &flow->rest_addr[3], 4))
			return false;
		flow->addr[2] = flow->rest_addr[2] = bpf_htonl(0xffff);
		at = (first & 15) * 4;
	} else if (bpf_skb_load_bytes(skb, 6, &first, 1) ||
		   bpf_skb_load_bytes(skb, 8, flow->addr, 16) ||
		   bpf_skb_load_bytes(skb, 24, flow->rest_addr, 16)) {
		return false;
	} else if (first != flow->protocol) {
		return true;
	}
	bpf_skb_load_bytes(skb, at, &port, sizeof(port));
	flow->rest_port = bpf_ntohs(port);
	return true;
}

static __always_inline void
fill_peer_key(struct aegis_peer_key *key, __u64 cookie, const __u32 addr[4], __u16 port)
{
	key->cookie = cookie;
	key->port = port;
	__builtin_memcpy(key->addr, addr, sizeof(key->addr));
}

static __always_inline bool spoken_to(struct aegis_label *label, const struct flow *flow)
{
	struct aegis_peer_key key = {};
	struct aegis_peer *peer;

	fill_peer_key(&key, label->cookie, flow->addr, flow->rest_port);
	peer = bpf_map_lookup_elem(&peers, &key);
	return peer && peer->sent;
}

SEC("cgroup_skb/ingress")
int aegis_ingress(struct __sk_buff *skb)
{
	struct flow flow = { .hook = AEGIS_HOOK_INGRESS };
	struct aegis_config *config;
	struct bpf_sock *sk = skb->sk;
	struct aegis_label *label;

	if (!sk)
		return AEGIS_ALLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return AEGIS_ALLOW;
	/* TCP beyond the handshake, UDP that is connected: its end was judged before. */
	flow.protocol = sk->protocol;
	if (flow.protocol == AEGIS_PROTOCOL_UDP ? sk->state == TCP_ESTABLISHED :
						  sk->state != TCP_LISTEN)
		return AEGIS_ALLOW;
	label = bpf_sk_storage_get(&labels, sk, NULL, 0);
	if (!label)
		return AEGIS_ALLOW;
	config = current_config();
	flow.protocol = protocol_of(flow.protocol);
	flow.port = sk->src_port;
	if (!config || !parse_packet(&flow, skb))
		return AEGIS_DENY;
	if (flow.protocol == AEGIS_PROTOCOL_UDP && spoken_to(label, &flow))
		return AEGIS_ALLOW;
	return judge_packet(label, config, &flow, true);
}

/* ---- UDP without a connection ---- */

/*
 * An answer to a peer that spoke to this socket passes, whatever its port. Whom
 * a bound socket speaks to may answer; unbound ones hear only from those.
 */
static __always_inline void
note_sent(struct bpf_sock_addr *ctx, struct aegis_config *config, struct decision *d,
	  const struct flow *flow)
{
	struct aegis_peer told = { .sent = 1 };
	struct aegis_peer_key key = {};
	struct aegis_label *label;
	struct aegis_peer *peer;

	if (!ctx->sk || flow->protocol != AEGIS_PROTOCOL_UDP)
		return;
	label = bpf_sk_storage_get(&labels, ctx->sk, NULL, 0);
	if (!label && config->refuses_inbound)
		label = label_socket(ctx->sk, bpf_get_socket_cookie(ctx));
	if (!label)
		return;
	fill_peer_key(&key, label->cookie, flow->addr, flow->port);
	peer = bpf_map_lookup_elem(&peers, &key);
	if (peer && peer->generation && d->actions) {
		d->reason = AEGIS_REASON_HARMLESS;
		d->verdict = AEGIS_VERDICT_ALLOWED;
		d->actions = 0;
		d->report = 0;
		return;
	}
	if (d->verdict == AEGIS_VERDICT_BLOCKED || (peer && peer->sent))
		return;
	if (peer)
		told.generation = peer->generation;
	bpf_map_update_elem(&peers, &key, &told, BPF_ANY);
}

/* A socket that was handed over: whoever takes what comes owns it. */
static __always_inline void hand_over(__u64 cookie, struct aegis_proc *taker)
{
	struct aegis_proc *owner = bpf_map_lookup_elem(&listeners, &cookie);

	if (!owner || owner->inode != taker->inode || owner->device != taker->device)
		own_socket(cookie);
}

static __always_inline void took_datagram(struct bpf_sock_addr *ctx, bool is_v6)
{
	struct flow flow = { .hook = AEGIS_HOOK_RECVMSG, .direction = AEGIS_DIRECTION_IN };
	struct aegis_config *config = current_config();
	struct aegis_peer heard = {};
	struct aegis_peer_key key = {};
	struct bpf_sock *sk = ctx->sk;
	struct aegis_label *label;
	struct aegis_peer *peer;
	struct aegis_proc *proc;
	struct decision d = {};

	if (!sk || !config || sk->state == TCP_ESTABLISHED)
		return;
	label = bpf_sk_storage_get(&labels, sk, NULL, 0);
	if (!label)
		return;
	flow.protocol = AEGIS_PROTOCOL_UDP;
	flow.port = sk->src_port;
	flow.rest_port = bpf_ntohs(ctx->user_port);
	if (is_v6) {
		copy_v6(flow.addr, ctx->user_ip6);
		copy_v6(flow.rest_addr, sk->src_ip6);
	} else {
		set_v4(flow.addr, ctx->user_ip4);
		set_v4(flow.rest_addr, sk->src_ip4);
	}
	fill_peer_key(&key, label->cookie, flow.addr, flow.rest_port);
	peer = bpf_map_lookup_elem(&peers, &key);
	if (peer && (peer->sent || peer->generation == config->generation))
		return;
	proc = current_proc();
	count(AEGIS_COUNTER_DECIDED);
	if (!proc || !aegis_decide(&d, config, class_of(proc, NULL, config), proc->flags, &flow)) {
		broken();
		return;
	}
	hand_over(label->cookie, proc);
	if (d.verdict == AEGIS_VERDICT_BLOCKED) {
		d.verdict = AEGIS_VERDICT_ALLOWED;	/* too late: said is what happened */
	} else {
		heard.generation = config->generation;
		bpf_map_update_elem(&peers, &key, &heard, BPF_ANY);
	}
	count_verdict(&d);
	if (d.report)
		aegis_report(proc, NULL, config, &d, &flow);
}

SEC("cgroup/recvmsg4")
int aegis_recvmsg4(struct bpf_sock_addr *ctx)
{
	took_datagram(ctx, false);
	return 1;
}

SEC("cgroup/recvmsg6")
int aegis_recvmsg6(struct bpf_sock_addr *ctx)
{
	took_datagram(ctx, true);
	return 1;
}

/* ---- sockets older than the hooks ---- */

struct ancestry {
	struct cgroup *cgroup;
	__u64 wanted;
	bool found;
};

static long ancestry_step(__u32 index, struct ancestry *search)
{
	struct cgroup *cgroup = search->cgroup;	/* a local: CO-RE must not see our struct */
	struct cgroup_subsys_state *parent = BPF_CORE_READ(cgroup, self.parent);

	search->found = BPF_CORE_READ(cgroup, kn, id) == search->wanted;
	if (search->found || !parent)
		return 1;
	search->cgroup = BPF_CORE_READ(parent, cgroup);
	return 0;
}

/* Only of what is bound below our cgroup: nobody would tell us of the end of others. */
static __always_inline bool is_ours(struct sock *sk)
{
	unsigned short family = sk->__sk_common.skc_family;
	__u32 zero = 0;
	struct aegis_host *host_ = bpf_map_lookup_elem(&host, &zero);
	struct ancestry search;

	if (!host_ || (family != AF_INET && family != AF_INET6) || !sk->__sk_common.skc_num)
		return false;
	if (sk->sk_protocol == AEGIS_PROTOCOL_UDP ? sk->__sk_common.skc_state == TCP_ESTABLISHED :
						    sk->__sk_common.skc_state != TCP_LISTEN)
		return false;
	clear_unknown(&search, sizeof(search));
	search.cgroup = sk->sk_cgrp_data.cgroup;
	search.wanted = host_->cgroup_id;
	bpf_loop(UNIT_LEVELS, ancestry_step, &search, 0);
	return search.found;
}

/* One that systemd holds for a service, too, is the service's. */
SEC("iter/task_file")
int aegis_seed_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct aegis_label *label;
	struct aegis_owner *owner;
	struct socket *socket;
	__u64 cookie;
	__u32 tgid;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk || !is_ours(socket->sk))
		return 0;
	cookie = bpf_get_socket_cookie(socket->sk);
	owner = bpf_map_lookup_elem(&owners, &cookie);
	if (owner && owner->tgid != 1)
		return 0;
	label = bpf_sk_storage_get(&labels, socket->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!label) {
		count(AEGIS_COUNTER_IDENTITY_LOST);
		return 0;
	}
	label->cookie = cookie;
	tgid = task->tgid;
	/* Read, it is a number: a typed pointer is not taken for one. */
	give_socket(cookie, bpf_map_lookup_elem(&procs, &tgid), BPF_CORE_READ(task, group_leader));
	return 0;
}

/* ---- the end of a socket ---- */

SEC("cgroup/sock_release")
int aegis_release(struct bpf_sock *ctx)
{
	struct aegis_label *label = bpf_sk_storage_get(&labels, ctx, NULL, 0);
	__u64 cookie;

	if (!label)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	if (label->cookie == cookie) {	/* and not what was accepted from it */
		bpf_map_delete_elem(&listeners, &cookie);
		bpf_map_delete_elem(&owners, &cookie);
	}
	return 1;
}

#endif
