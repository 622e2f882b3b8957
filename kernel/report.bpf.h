/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Telling user space, which the verdict never waits for. Each decision ends in
 * exactly one of emitted, suppressed, lost, quiet.
 */
#ifndef AEGIS_REPORT_BPF_H
#define AEGIS_REPORT_BPF_H

#include "kill.bpf.h"

#define SHARE_WINDOW_SHIFT 30	/* of nanoseconds: 1.07 s */
#define KEPT_FOR_PROOF (64 * sizeof(struct aegis_event))	/* see canary.bpf.h */
#define KILL_AGAIN_NS 100000000ULL	/* to ask again for a kill that did not happen yet */

/* From the task: the helper is not to be had in every hook. */
static __always_inline __u32 current_uid(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, cred, uid.val);
}

static __always_inline __u32 current_tgid(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, tgid);
}

/* A task, as the owner of its sockets. */
static __always_inline void fill_owner(struct aegis_owner *owner, struct task_struct *task)
{
	owner->tgid = BPF_CORE_READ(task, tgid);
	owner->uid = BPF_CORE_READ(task, cred, uid.val);
	owner->ppid = BPF_CORE_READ(task, real_parent, tgid);
	owner->cgroup_id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	aegis_read_unit(&owner->unit, (__u64)task);
}

/* Whether the texts fit a short event. They are zero padded, so one byte tells. */
static __always_inline bool is_short(const struct aegis_proc *proc)
{
	return !(proc->flags & (AEGIS_ID_LOST | AEGIS_ID_KTHREAD)) &&
	       proc->cmdline_len <= AEGIS_SHORT_CMDLINE && !proc->path.text[AEGIS_SHORT_PATH - 1];
}

static __always_inline void emit_short_texts(struct aegis_event *event, struct aegis_proc *proc)
{
	char *texts = (char *)event + AEGIS_EVENT_HEAD;

	__builtin_memcpy(texts, &proc->path, AEGIS_SHORT_PATH);
	__builtin_memcpy(texts + AEGIS_SHORT_PATH, &proc->cmdline, AEGIS_SHORT_CMDLINE);
}

static __always_inline void emit_process(struct aegis_event *event, struct aegis_proc *proc)
{
	event->start_boot_ns = proc->start_boot_ns;
	event->exec_boot_ns = proc->exec_boot_ns;
	event->inode = proc->inode;
	event->device = proc->device;
	event->identity = proc->flags;
	event->cmdline_len = proc->cmdline_len;
	event->script_off = proc->script_off;
}

/* A process that was not recorded: better its start and comm than nothing to go by. */
static __always_inline void emit_nobody(struct aegis_event *event)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	event->start_boot_ns = start_of(task);
	bpf_probe_read_kernel_str(&event->path, sizeof(task->comm), &task->comm);
}

/* Without arguments: which of the kernel's threads it is. */
static __always_inline void emit_kernel_thread(struct aegis_event *event)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	event->cmdline_len = bpf_probe_read_kernel_str(&event->cmdline, sizeof(task->comm),
						       &task->comm);
}

static __always_inline void
emit_texts(struct aegis_event *event, struct aegis_proc *proc, struct aegis_owner *owner)
{
	__builtin_memcpy(&event->path, &proc->path, sizeof(event->path));
	__builtin_memcpy(&event->cmdline, &proc->cmdline, sizeof(event->cmdline));
	if (owner)
		return;
	if (proc->flags & AEGIS_ID_LOST)
		emit_nobody(event);
	if (proc->flags & AEGIS_ID_KTHREAD)
		emit_kernel_thread(event);
}

/* Inbound, *addr* is the source and *port* the destination's. */
static __always_inline void emit_flow(struct aegis_event *event, const struct flow *flow)
{
	bool in = flow->direction == AEGIS_DIRECTION_IN;

	event->hook = flow->hook;
	event->direction = flow->direction;
	event->protocol = flow->protocol;
	event->dport = flow->hook == AEGIS_HOOK_SOCKET ? 0 : flow->port;
	event->sport = flow->rest_port;
	__builtin_memcpy(event->daddr, in ? flow->rest_addr : flow->addr, sizeof(event->daddr));
	__builtin_memcpy(event->saddr, in ? flow->addr : flow->rest_addr, sizeof(event->saddr));
}

/*
 * Most of the ring is for those that report little: one noisy process does not lose the
 * events of others, and there is room for 10,000 at once of one that was quiet. Counted
 * loosely: by a process's threads at once, some are missed.
 */
static __always_inline bool over_share(struct aegis_proc *proc, __u64 now, __u64 waiting)
{
	__u32 window = now >> SHARE_WINDOW_SHIFT, used = READ_ONCE(proc->share_used) + 1;

	if (READ_ONCE(proc->share_window) != window) {
		WRITE_ONCE(proc->share_window, window);
		used /= 2;	/* who was noisy a moment ago still is */
	}
	WRITE_ONCE(proc->share_used, used);
	return used > AEGIS_SHARE && waiting > AEGIS_RING_NOISY;
}

/* The last of the ring is nobody's but the self-test's: a flood must not make it fail. */
static __always_inline bool has_room(struct aegis_proc *proc, __u64 now, enum aegis_kill kill)
{
	__u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	bool over = over_share(proc, now, waiting);

	return waiting <= AEGIS_RING_BYTES - KEPT_FOR_PROOF && (kill || !over);
}

/* It is only for the names: with too many of them, or two at once, some are missing. */
static __noinline int note_noisy(struct aegis_proc *proc, __u32 tgid)
{
	static const struct aegis_noisy blank;
	struct aegis_noisy *noise = bpf_map_lookup_elem(&noisy, &tgid);

	if (!noise) {
		if (bpf_map_update_elem(&noisy, &tgid, &blank, BPF_NOEXIST))
			return 0;
		noise = bpf_map_lookup_elem(&noisy, &tgid);
		if (!noise)
			return 0;
		__builtin_memcpy(&noise->path, &proc->path, sizeof(noise->path));
	}
	__sync_fetch_and_add(&noise->lost, 1);
	return 0;
}

/* What an event begins with, whatever its size. */
struct event_head {
	char bytes[AEGIS_EVENT_HEAD];
};

/* A global function: verified once, and not for each size of an event. */
__noinline int
aegis_fill_head(struct event_head *head, struct aegis_proc *proc, struct aegis_owner *owner,
		struct decision *d, struct flow *flow)
{
	struct aegis_event *event = (void *)head;

	if (!head || !proc || !d || !flow)
		return 0;
	event->app = d->app;
	event->verdict = d->verdict;
	event->reason = d->reason;
	event->actions = d->actions;
	event->scope = d->scope;
	emit_flow(event, flow);
	emit_process(event, proc);
	if (owner)
		event->owner = *owner;
	else
		fill_owner(&event->owner, (void *)bpf_get_current_task());
	return 0;
}

/* What is about this report rather than about what was decided. */
struct report {
	__u64 now;
	__u64 suppressed;
	bool silent;
	enum aegis_kill kill;
};

/* A reserved record still holds an older event's bytes: clear them all. */
static __always_inline void
emit_head(struct aegis_event *event, struct aegis_config *config, const struct report *report)
{
	__builtin_memset(event, 0, AEGIS_EVENT_HEAD);
	event->boot_ns = report->now;
	event->suppressed = report->suppressed;
	event->silent = report->silent;
	event->kill = report->kill;
	event->generation = config->generation;
	event->mode = config->mode;
}

static __always_inline bool
emit(struct aegis_proc *proc, struct aegis_owner *owner, struct aegis_config *config,
     struct decision *d, struct flow *flow, const struct report *report)
{
	bool room = has_room(proc, report->now, report->kill);
	struct aegis_event *event;

	/* Apart to the end: 6.1 does not see that a condition asked twice is the same. */
	if (room && is_short(proc)) {
		event = bpf_ringbuf_reserve(&events, AEGIS_SHORT_EVENT, 0);
		if (event) {
			emit_head(event, config, report);
			aegis_fill_head((void *)event, proc, owner, d, flow);
			emit_short_texts(event, proc);
			bpf_ringbuf_submit(event, 0);
			return true;
		}
	} else if (room) {
		event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
		if (event) {
			emit_head(event, config, report);
			aegis_fill_head((void *)event, proc, owner, d, flow);
			emit_texts(event, proc, owner);
			bpf_ringbuf_submit(event, 0);
			return true;
		}
	}
	return false;
}

/* Inbound the address is our own, not each client's, unless who comes is what was refused. */
static __always_inline void
fill_detent_key(struct aegis_detent_key *key, struct aegis_proc *proc, const struct decision *d,
		const struct flow *flow)
{
	key->rule_id = d->rule_id;
	key->inode = proc->inode;
	key->device = proc->device;
	key->port = flow->port;
	key->direction = flow->direction;
	key->protocol = flow->protocol;
	key->verdict = d->verdict;
	key->scope = d->scope;
	if (flow->direction == AEGIS_DIRECTION_IN && d->scope != AEGIS_SCOPE_PEER)
		__builtin_memcpy(key->addr, flow->rest_addr, sizeof(key->addr));
	else
		__builtin_memcpy(key->addr, flow->addr, sizeof(key->addr));
}

/* Whether the same was reported less than *detent_ns* ago; then it counts as silenced. */
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
	return true;
}

/*
 * Whether this report is the one of its detent; *suppressed: how many were
 * silenced before it. An entry is replaced, never stamped in place: the LRU may
 * hand its memory to another flow at any moment, and that flow's first report
 * must not be lost.
 */
static __always_inline bool
begin_detent(const struct aegis_detent_key *key, __u64 now, __u64 detent_ns, __u64 *suppressed)
{
	struct aegis_detent fresh = { .reported_boot_ns = now };
	struct aegis_detent *detent = bpf_map_lookup_elem(&detents, key);

	if (silenced(detent, now, detent_ns))
		return false;
	if (detent) {
		*suppressed = READ_ONCE(detent->suppressed);
		if (bpf_map_update_elem(&detents, key, &fresh, BPF_ANY))
			count(AEGIS_COUNTER_DETENT_FAILED);
	} else if (bpf_map_update_elem(&detents, key, &fresh, BPF_NOEXIST)) {
		/* Another CPU was first with the same, or there is no memory. */
		if (silenced(bpf_map_lookup_elem(&detents, key), now, detent_ns))
			return false;
		count(AEGIS_COUNTER_DETENT_FAILED);
	}
	return true;
}

/* The next one reports, and counts this one. */
static __always_inline void undo_detent(const struct aegis_detent_key *key, __u64 suppressed)
{
	struct aegis_detent undone = { .suppressed = suppressed + 1 };

	bpf_map_update_elem(&detents, key, &undone, BPF_ANY);
}

/*
 * A UDP connect() and a new socket send nothing, a packet that comes is somebody
 * else's doing: refused, but nobody is killed for it.
 */
static __always_inline bool is_passive(const struct flow *flow)
{
	if (flow->hook == AEGIS_HOOK_CONNECT)
		return flow->protocol != AEGIS_PROTOCOL_TCP;
	return flow->hook == AEGIS_HOOK_SOCKET || flow->hook >= AEGIS_HOOK_INGRESS;
}

/*
 * Detent silences reports, never enforcement: a process to be killed is told
 * of even then, but not for each connection it tries until the signal arrives.
 */
static __always_inline bool
kill_is_due(struct aegis_proc *proc, const struct decision *d, const struct flow *flow, __u64 now)
{
	__u64 asked = READ_ONCE(proc->kill_boot_ns);

	if (!(d->actions & AEGIS_ACTION_KILL) || d->verdict != AEGIS_VERDICT_BLOCKED)
		return false;
	if (is_passive(flow))
		return false;
	/* Without a start it is tgid 0's entry, which stands for many. */
	if (asked && now - asked < KILL_AGAIN_NS && proc->start_boot_ns)
		return false;
	WRITE_ONCE(proc->kill_boot_ns, now);
	return true;
}

/*
 * A global function: verified once, and not for each way into it.
 * *owner*: NULL for the caller's. Of a connect() it is another process.
 */
__noinline int
aegis_report(struct aegis_proc *proc, struct aegis_owner *owner, struct aegis_config *config,
	     struct decision *d, struct flow *flow)
{
	struct aegis_detent_key key = {};
	struct report report = { .now = bpf_ktime_get_boot_ns() };
	__u64 detent_ns;

	if (!proc || !config || !d || !flow)
		return 0;
	detent_ns = d->detent_s * 1000000000ULL;
	report.kill = !kill_is_due(proc, d, flow, report.now) ? AEGIS_KILL_NONE :
		      owner && flow->hook == AEGIS_HOOK_CONNECT ? AEGIS_KILL_AGENT :
		      kill_current(proc, config, d, report.now);
	if (detent_ns) {
		fill_detent_key(&key, proc, d, flow);
		report.silent = !begin_detent(&key, report.now, detent_ns, &report.suppressed);
	}
	if (report.silent && !report.kill) {
		count(AEGIS_COUNTER_SUPPRESSED);
		return 0;
	}
	if (emit(proc, owner, config, d, flow, &report)) {
		count(AEGIS_COUNTER_EMITTED);
		return 0;
	}
	count(AEGIS_COUNTER_LOST);
	note_noisy(proc, owner ? owner->tgid : current_tgid());
	if (detent_ns && !report.silent)
		undo_detent(&key, report.suppressed);
	return 0;
}

#endif
