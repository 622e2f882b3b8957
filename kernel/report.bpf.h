/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Telling user space, which the verdict never waits for. Each decision ends in
 * exactly one of emitted, suppressed, lost, quiet.
 */
#ifndef AEGIS_REPORT_BPF_H
#define AEGIS_REPORT_BPF_H

#include "decide.bpf.h"

static __always_inline void
emit_process(struct aegis_event *event, struct aegis_proc *proc)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	event->ppid = BPF_CORE_READ(task, real_parent, tgid);
	event->cgroup_id = bpf_get_current_cgroup_id();
	event->start_boot_ns = start_of(task);
	event->exec_boot_ns = proc->exec_boot_ns;
	event->inode = proc->inode;
	event->device = proc->device;
	event->identity = proc->flags;
	event->cmdline_len = proc->cmdline_len;
	event->script_off = proc->script_off;
	__builtin_memcpy(&event->path, &proc->path, sizeof(event->path));
	__builtin_memcpy(&event->cmdline, &proc->cmdline, sizeof(event->cmdline));
	if (proc->flags & AEGIS_ID_LOST)	/* better a comm than nothing to go by */
		bpf_probe_read_kernel_str(&event->path, sizeof(task->comm), &task->comm);
	aegis_read_unit(&event->unit);
}

/* All zero until the kernel binds the socket. */
static __always_inline void emit_source(struct aegis_event *event, struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 addr[4] = {};

	if (!sk)
		return;
	event->sport = sk->src_port;
	/* An IPv6 socket's src_ip4 is a made-up 127.0.0.6 (LOOPBACK4_IPV6). */
	if (sk->family == AF_INET) {
		addr[3] = sk->src_ip4;
		addr[2] = addr[3] ? bpf_htonl(0xffff) : 0;
	} else {
		addr[0] = sk->src_ip6[0];
		addr[1] = sk->src_ip6[1];
		addr[2] = sk->src_ip6[2];
		addr[3] = sk->src_ip6[3];
	}
	__builtin_memcpy(event->saddr, addr, sizeof(addr));
}

static __always_inline bool
emit(struct bpf_sock_addr *ctx, struct aegis_proc *proc, struct aegis_config *config,
     const struct decision *d, const struct flow *flow, __u64 now, __u64 suppressed)
{
	struct aegis_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(AEGIS_COUNTER_LOST);
		return false;
	}
	/* A reserved record still holds an older event's bytes: clear them all. */
	__builtin_memset(event, 0, sizeof(*event));
	event->boot_ns = now;
	event->suppressed = suppressed;
	event->generation = config->generation;
	event->mode = config->mode;
	event->app = d->app;
	event->verdict = d->verdict;
	event->reason = d->reason;
	event->actions = d->actions;
	event->hook = flow->hook;
	event->direction = AEGIS_DIRECTION_OUT;
	event->protocol = flow->protocol;
	event->scope = flow->scope;
	event->dport = flow->port;
	__builtin_memcpy(event->daddr, flow->addr, sizeof(event->daddr));
	emit_process(event, proc);
	emit_source(event, ctx);
	bpf_ringbuf_submit(event, 0);
	count(AEGIS_COUNTER_EMITTED);
	return true;
}

static __always_inline void
fill_detent_key(struct aegis_detent_key *key, struct aegis_proc *proc, const struct decision *d,
		const struct flow *flow)
{
	key->rule_id = d->rule_id;
	key->inode = proc->inode;
	key->device = proc->device;
	key->port = flow->port;
	key->direction = AEGIS_DIRECTION_OUT;
	key->protocol = flow->protocol;
	key->verdict = d->verdict;
	__builtin_memcpy(key->addr, flow->addr, sizeof(key->addr));
}

/* Count it as silenced if the same was reported less than *detent_ns* ago. */
static __always_inline bool
silenced(struct aegis_detent *detent, __u64 now, __u64 detent_ns)
{
	__u64 reported;

	if (!detent)
		return false;
	reported = READ_ONCE(detent->reported_boot_ns);
	if (!reported || now - reported >= detent_ns)
		return false;
	__sync_fetch_and_add(&detent->suppressed, 1);
	count(AEGIS_COUNTER_SUPPRESSED);
	return true;
}

/*
 * An entry is replaced, never stamped in place: the LRU may hand its memory to
 * another flow at any moment, and that flow's first report must not be lost.
 * A global function: verified once, and not for each way into it.
 */
__noinline int
aegis_report(struct bpf_sock_addr *ctx, struct aegis_proc *proc, struct aegis_config *config,
	     struct decision *d, struct flow *flow)
{
	struct aegis_detent fresh = {}, *detent;
	struct aegis_detent_key key = {};
	__u64 now, detent_ns, suppressed = 0;

	if (!proc || !config || !d || !flow)
		return 0;
	now = bpf_ktime_get_boot_ns();
	fresh.reported_boot_ns = now;
	detent_ns = d->detent_s * 1000000000ULL;
	if (!detent_ns) {
		emit(ctx, proc, config, d, flow, now, 0);
		return 0;
	}
	fill_detent_key(&key, proc, d, flow);
	detent = bpf_map_lookup_elem(&detents, &key);
	if (silenced(detent, now, detent_ns))
		return 0;
	if (detent) {
		suppressed = READ_ONCE(detent->suppressed);
		if (bpf_map_update_elem(&detents, &key, &fresh, BPF_ANY))
			count(AEGIS_COUNTER_DETENT_FAILED);
	} else if (bpf_map_update_elem(&detents, &key, &fresh, BPF_NOEXIST)) {
		/* Another CPU was first with the same, or there is no memory. */
		if (silenced(bpf_map_lookup_elem(&detents, &key), now, detent_ns))
			return 0;
		count(AEGIS_COUNTER_DETENT_FAILED);
	}
	if (!emit(ctx, proc, config, d, flow, now, suppressed)) {
		fresh.reported_boot_ns = 0;	/* the next one reports, and counts this one */
		fresh.suppressed = suppressed + 1;
		bpf_map_update_elem(&detents, &key, &fresh, BPF_ANY);
	}
	return 0;
}

#endif
