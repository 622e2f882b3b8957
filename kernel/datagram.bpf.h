/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * UDP without a connection: who spoke to which socket may be answered, and whom
 * it spoke to may answer.
 */
#ifndef AEGIS_DATAGRAM_BPF_H
#define AEGIS_DATAGRAM_BPF_H

#include "owner.bpf.h"

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

/*
 * An answer to a peer that spoke to this socket passes, whatever its port. Whom
 * a bound socket speaks to may answer; unbound ones hear only from those.
 */
static __noinline int
note_sent(struct bpf_sock_addr *ctx, struct aegis_config *config, struct decision *d,
	  const struct flow *flow)
{
	struct aegis_peer told = { .sent = 1 };
	struct aegis_peer_key key = {};
	struct aegis_label *label;
	struct aegis_peer *peer;

	if (!ctx->sk || flow->protocol != AEGIS_PROTOCOL_UDP)
		return 0;
	label = bpf_sk_storage_get(&labels, ctx->sk, NULL, 0);
	if (!label && config->refuses_inbound)
		label = label_socket(ctx->sk, bpf_get_socket_cookie(ctx));
	if (!label)
		return 0;
	fill_peer_key(&key, label->cookie, flow->addr, flow->port);
	peer = bpf_map_lookup_elem(&peers, &key);
	if (peer && peer->generation && d->actions) {
		d->reason = AEGIS_REASON_HARMLESS;
		d->verdict = AEGIS_VERDICT_ALLOWED;
		d->actions = 0;
		d->report = 0;
		return 0;
	}
	if (d->verdict == AEGIS_VERDICT_BLOCKED || (peer && peer->sent))
		return 0;
	if (peer)
		told.generation = peer->generation;
	bpf_map_update_elem(&peers, &key, &told, BPF_ANY);
	return 0;
}

/* A socket that was handed over: whoever takes what comes owns it. */
static __always_inline void hand_over(__u64 cookie, struct aegis_proc *taker)
{
	struct aegis_proc *owner = bpf_map_lookup_elem(&listeners, &cookie);

	if (!owner || owner->inode != taker->inode || owner->device != taker->device)
		own_socket(cookie);
}

/* Whether this peer was spoken to, or was judged already under this policy. */
static __noinline int is_known(__u64 cookie, const struct flow *flow, __u32 generation)
{
	struct aegis_peer_key key = {};
	struct aegis_peer *peer;

	fill_peer_key(&key, cookie, flow->addr, flow->rest_port);
	peer = bpf_map_lookup_elem(&peers, &key);
	return peer && (peer->sent || peer->generation == generation);
}

/* It may be answered; an entry the table has no room for is judged again next time. */
static __noinline int note_heard(__u64 cookie, const struct flow *flow, __u32 generation)
{
	struct aegis_peer heard = { .generation = generation };
	struct aegis_peer_key key = {};

	fill_peer_key(&key, cookie, flow->addr, flow->rest_port);
	return bpf_map_update_elem(&peers, &key, &heard, BPF_ANY);
}

static __always_inline void took_datagram(struct bpf_sock_addr *ctx, bool is_v6)
{
	struct flow flow = { .hook = AEGIS_HOOK_RECVMSG, .direction = AEGIS_DIRECTION_IN };
	struct aegis_config *config = current_config();
	struct bpf_sock *sk = ctx->sk;
	struct aegis_label *label;
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
	if (is_known(label->cookie, &flow, config->generation))
		return;
	proc = current_proc();
	if (!proc || !aegis_decide(&d, config, class_of(proc, NULL, config), proc->flags, &flow)) {
		broken();
		return;
	}
	hand_over(label->cookie, proc);
	if (d.verdict == AEGIS_VERDICT_BLOCKED)
		d.verdict = AEGIS_VERDICT_ALLOWED;	/* too late: said is what happened */
	else
		note_heard(label->cookie, &flow, config->generation);
	count_verdict(proc, &d, &flow);
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

#endif
