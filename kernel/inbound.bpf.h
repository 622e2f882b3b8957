/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What may come in. bind() is where a port is refused; a packet of a peer that
 * is not listed is dropped before the socket gets it, so no handshake is ever
 * completed.
 */
#ifndef AEGIS_INBOUND_BPF_H
#define AEGIS_INBOUND_BPF_H

#include "owner.bpf.h"
#include "datagram.bpf.h"

/* Judge as the owner of the bound socket *cookie*, count and tell. */
static __always_inline int
judge_packet(__u64 cookie, struct aegis_config *config, struct flow *flow,
	     bool only_blocked)
{
	struct aegis_proc *proc = bpf_map_lookup_elem(&listeners, &cookie);
	struct aegis_owner *owner = bpf_map_lookup_elem(&owners, &cookie);
	struct decision d = {};
	__u64 class_, zero = 0;

	if (!proc || !owner) {
		proc = nobody();
		owner = bpf_map_lookup_elem(&owners, &zero);
	}
	if (!proc || !owner)
		return broken();
	class_ = class_of(proc, owner, config);
	flow->direction = AEGIS_DIRECTION_IN;
	if (!aegis_decide(&d, config, class_, proc->flags, flow))
		return broken();
	/* Each packet passes here, and once it did another hook counts and tells. */
	if (only_blocked && d.verdict != AEGIS_VERDICT_BLOCKED)
		return AEGIS_ALLOW;
	count_verdict(proc, &d, flow);
	if (d.report)
		aegis_report(proc, owner, config, &d, flow);
	return d.verdict == AEGIS_VERDICT_BLOCKED ? AEGIS_DENY : AEGIS_ALLOW;
}

/* ---- bind() ---- */

/* Before listen(), or who comes at once would be nobody's. */
static __noinline int serve_bound(struct bpf_sock_addr *ctx, __u32 number)
{
	struct bpf_sock *sk = ctx->sk;
	struct aegis_port_key port = {};
	struct aegis_label *label;

	if (!sk || protocol_of(ctx->protocol) != AEGIS_PROTOCOL_TCP)
		return 0;
	label = bpf_sk_storage_get(&labels, sk, NULL, 0);
	port.netns_cookie = bpf_get_netns_cookie(ctx);
	port.port = number;
	if (label)
		serve(sk, label, &port);
	return 0;
}

static __always_inline int bind_verdict(struct bpf_sock_addr *ctx, bool is_v6)
{
	struct flow flow = { .hook = AEGIS_HOOK_BIND, .direction = AEGIS_DIRECTION_IN };
	struct aegis_config *config = current_config();
	struct aegis_proc *proc = current_proc();
	struct decision d = {};
	__u64 class_;

	/* Labelled first: that may fail, and what was counted as allowed is not refused then. */
	if (!config || !proc || !ctx->sk || !label_socket(ctx->sk, bpf_get_socket_cookie(ctx)))
		return broken();
	flow.port = bpf_ntohs(ctx->user_port);
	flow.protocol = protocol_of(ctx->protocol);
	if (is_v6)
		copy_v6(flow.rest_addr, ctx->user_ip6);
	else
		set_v4(flow.rest_addr, ctx->user_ip4);
	if (flow.port) {		/* else the kernel chooses one */
		class_ = class_of(proc, NULL, config);
		if (!aegis_decide(&d, config, class_, proc->flags, &flow))
			return broken();
		/* What is not refused is told by listen(), or when somebody comes. */
		if (d.verdict == AEGIS_VERDICT_ALLOWED)
			d.report = 0;
		count_verdict(proc, &d, &flow);
		if (d.report)
			aegis_report(proc, NULL, config, &d, &flow);
		if (d.verdict == AEGIS_VERDICT_BLOCKED)
			return AEGIS_DENY;
		serve_bound(ctx, flow.port);
	}
	return AEGIS_ALLOW;
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

/* The cookie of the listener that *ctx* is about; 0: nobody's. A frame of its own. */
static __noinline __u64 listener_of(struct bpf_sock_ops *ctx, struct bpf_sock *sk, bool listens)
{
	struct aegis_port_key port = {};
	struct aegis_label *label;
	__u64 *server;

	port.netns_cookie = bpf_get_netns_cookie(ctx);
	port.port = ctx->local_port;
	if (listens) {
		label = label_socket(sk, bpf_get_socket_cookie(ctx));
		if (label)
			serve(sk, label, &port);
		return label ? label->cookie : 0;
	}
	label = bpf_sk_storage_get(&inherited, sk, NULL, 0);
	server = label ? &label->cookie : bpf_map_lookup_elem(&served, &port);
	return server ? READ_ONCE(*server) : 0;
}

SEC("sockops")
int aegis_sockops(struct bpf_sock_ops *ctx)
{
	struct aegis_config *config;
	struct flow flow = {};
	struct bpf_sock *sk;
	__u64 cookie;

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
	cookie = listener_of(ctx, sk, flow.hook == AEGIS_HOOK_LISTEN);
	if (!cookie)
		return 1;
	parse_socket(&flow, ctx);
	judge_packet(cookie, config, &flow, false);
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
		return broken();
	if (flow.protocol == AEGIS_PROTOCOL_UDP && spoken_to(label, &flow))
		return AEGIS_ALLOW;
	return judge_packet(label->cookie, config, &flow, true);
}

#endif
