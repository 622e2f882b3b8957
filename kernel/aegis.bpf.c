// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hooks. Each parses its context and calls one function; the ideas are in
 * identity.bpf.h, arguments.bpf.h and asker.bpf.h (who), classify.bpf.h (which rule),
 * decide.bpf.h (verdict), report.bpf.h (telling), history.bpf.h (adding up),
 * owner.bpf.h (whose a bound socket is), inbound.bpf.h and datagram.bpf.h (what
 * comes in).
 */
#include "core.bpf.h"
#include "identity.bpf.h"
#include "arguments.bpf.h"
#include "classify.bpf.h"
#include "decide.bpf.h"
#include "report.bpf.h"
#include "verdict.bpf.h"
#include "owner.bpf.h"
#include "datagram.bpf.h"
#include "inbound.bpf.h"
#include "existing.bpf.h"
#include "canary.bpf.h"
#include "lineage.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* ---- identity ---- */

SEC("tp_btf/sched_process_exec")
int BPF_PROG(aegis_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	return record_exec(task, bprm);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(aegis_exec_again, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	return record_exec(task, bprm);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(aegis_fork, struct task_struct *parent, struct task_struct *child)
{
	return record_fork(parent, child);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(aegis_fork_again, struct task_struct *parent, struct task_struct *child)
{
	return record_fork(parent, child);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(aegis_exit, struct task_struct *task)
{
	__u32 tgid = BPF_CORE_READ(task, tgid);

	/* Zero once the last thread is on its way out; the pid is not free yet. */
	if (!BPF_CORE_READ(task, signal, live.counter))
		bpf_map_delete_elem(&procs, &tgid);
	return 0;
}

/* Processes older than us: the best that can be known now, marked as such. */
SEC("iter.s/task")
int aegis_seed(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 zero = 0, tgid, size;
	struct aegis_proc *proc = bpf_map_lookup_elem(&seeding, &zero);
	struct mm_struct *mm;

	if (!task || !proc || BPF_CORE_READ(task, group_leader) != task)
		return 0;
	tgid = BPF_CORE_READ(task, tgid);
	if (bpf_map_lookup_elem(&procs, &tgid))
		return 0;
	__builtin_memset(proc, 0, sizeof(*proc));
	fill_live(proc, task);
	mm = BPF_CORE_READ(task, mm);
	if (mm && !(proc->flags & AEGIS_ID_KTHREAD)) {
		size = cmdline_size(proc, mm);
		keep_cmdline(proc, size, bpf_copy_from_user_task(
			proc->cmdline, size, (void *)BPF_CORE_READ(mm, arg_start), task, 0));
	}
	/* An exec meanwhile knows better. */
	if (bpf_map_update_elem(&procs, &tgid, proc, BPF_NOEXIST) == -E2BIG)
		count(AEGIS_COUNTER_IDENTITY_LOST);
	return 0;
}

/* Run once by the agent itself, through BPF_PROG_TEST_RUN: "my root is the host's". */
SEC("raw_tp/aegis_learn")
int aegis_learn(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 zero = 0;
	struct aegis_host *host_ = bpf_map_lookup_elem(&host, &zero);
	struct dentry *root = BPF_CORE_READ(task, fs, root.dentry);

	if (host_)
		host_->root_dentry = root == BPF_CORE_READ(task, fs, root.mnt, mnt_root) ?
				     (__u64)root : 0;
	return 0;
}

/* Run by the agent: how many bytes of the ring wait to be read. */
SEC("raw_tp/aegis_waiting")
int aegis_waiting(void *ctx)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
}

/* ---- outbound ---- */

/* What we do not know is judged as UDP, by its number. */
static __always_inline void
parse_destination(struct flow *flow, struct bpf_sock_addr *ctx, enum aegis_hook hook, bool is_v6)
{
	flow->hook = hook;
	flow->port = bpf_ntohs(ctx->user_port);
	flow->protocol = protocol_of(ctx->protocol);
	if (is_v6)
		copy_v6(flow->addr, ctx->user_ip6);
	else
		set_v4(flow->addr, ctx->user_ip4);
}

/* All zero until the kernel binds the socket. */
static __always_inline void parse_source(struct flow *flow, struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return;
	flow->rest_port = sk->src_port;
	/* An IPv6 socket's src_ip4 is a made-up 127.0.0.6 (LOOPBACK4_IPV6). */
	if (sk->family != AF_INET)
		copy_v6(flow->rest_addr, sk->src_ip6);
	else if (sk->src_ip4)
		set_v4(flow->rest_addr, sk->src_ip4);
}

static __always_inline int
verdict_of(struct bpf_sock_addr *ctx, enum aegis_hook hook, bool is_v6)
{
	struct aegis_config *config = current_config();
	struct aegis_proc *proc, *owning;
	struct aegis_owner *owner = NULL;
	struct decision d = {};
	struct flow flow = {};
	__u64 class_, cookie = 0, asked = 0;

	if (!config)
		return broken();
	if (hook == AEGIS_HOOK_CONNECT && ctx->protocol != AEGIS_PROTOCOL_UDP)
		cookie = aegis_subflow_of(ctx);
	parse_destination(&flow, ctx, hook, is_v6);
	if (hook == AEGIS_HOOK_CONNECT && !cookie && aegis_recall(config, &flow)) {
		count(AEGIS_COUNTER_PLAIN);
		return AEGIS_ALLOW;
	}
	proc = current_proc();
	if (!proc)
		return broken();
	if (cookie) {
		owning = bpf_map_lookup_elem(&listeners, &cookie);
		owner = owning ? bpf_map_lookup_elem(&owners, &cookie) : NULL;
		proc = owner ? owning : proc;
	}
	class_ = class_of(proc, owner, config);
	if (proc->flags & AEGIS_ID_CANARY) {
		aegis_canary(config, class_, proc->flags);
		return AEGIS_DENY;
	}
	if (hook == AEGIS_HOOK_CONNECT && !cookie)
		asked = question_of(class_, proc->flags);
	if (!aegis_decide(&d, config, class_, proc->flags, &flow))
		return broken();
	if (hook == AEGIS_HOOK_SENDMSG)
		note_sent(ctx, config, &d, &flow);
	count_question(proc, &d, &flow, asked);
	if (d.report) {
		parse_source(&flow, ctx);
		aegis_report(proc, owner, config, &d, &flow);
	}
	return d.verdict == AEGIS_VERDICT_BLOCKED ? AEGIS_DENY : AEGIS_ALLOW;
}

SEC("cgroup/connect4")
int aegis_connect4(struct bpf_sock_addr *ctx)
{
	return verdict_of(ctx, AEGIS_HOOK_CONNECT, false);
}

SEC("cgroup/connect6")
int aegis_connect6(struct bpf_sock_addr *ctx)
{
	return verdict_of(ctx, AEGIS_HOOK_CONNECT, true);
}

SEC("cgroup/sendmsg4")
int aegis_sendmsg4(struct bpf_sock_addr *ctx)
{
	return verdict_of(ctx, AEGIS_HOOK_SENDMSG, false);
}

SEC("cgroup/sendmsg6")
int aegis_sendmsg6(struct bpf_sock_addr *ctx)
{
	return verdict_of(ctx, AEGIS_HOOK_SENDMSG, true);
}

/* ---- sockets of other kinds ---- */

/* TCP, UDP and the sockets of ping are nothing to be asked about. */
static __always_inline bool is_ordinary(__u32 type, __u32 protocol)
{
	return type != SOCK_RAW &&
	       (protocol == AEGIS_PROTOCOL_TCP || protocol == AEGIS_PROTOCOL_UDP ||
		protocol == AEGIS_PROTOCOL_MPTCP || protocol == AEGIS_PROTOCOL_ICMP ||
		protocol == AEGIS_PROTOCOL_ICMPV6);
}

/* An enum aegis_socket bit. */
static __always_inline __u16 kind_of(__u32 type, __u32 protocol)
{
	bool icmp = protocol == AEGIS_PROTOCOL_ICMP || protocol == AEGIS_PROTOCOL_ICMPV6;

	if (type == SOCK_RAW)
		return icmp ? AEGIS_SOCKET_RAW | AEGIS_SOCKET_ICMP : AEGIS_SOCKET_RAW;
	switch (protocol) {
	case AEGIS_PROTOCOL_SCTP:
		return AEGIS_SOCKET_SCTP;
	case AEGIS_PROTOCOL_DCCP:
		return AEGIS_SOCKET_DCCP;
	case AEGIS_PROTOCOL_UDPLITE:
		return AEGIS_SOCKET_UDPLITE;
	default:
		return AEGIS_SOCKET_OTHER;
	}
}

SEC("cgroup/sock_create")
int aegis_socket(struct bpf_sock *ctx)
{
	struct flow flow = { .hook = AEGIS_HOOK_SOCKET };
	struct aegis_config *config;
	struct aegis_proc *proc;
	struct decision d = {};
	__u64 class_;

	if (ctx->protocol == AEGIS_PROTOCOL_MPTCP)
		bpf_get_socket_cookie(ctx);	/* makes it: see aegis_subflow_of() */
	if (is_ordinary(ctx->type, ctx->protocol))
		return AEGIS_ALLOW;
	config = current_config();
	proc = current_proc();
	if (!config || !proc)
		return broken();
	class_ = class_of(proc, NULL, config);
	flow.port = kind_of(ctx->type, ctx->protocol);
	flow.protocol = ctx->protocol;
	if (!aegis_decide(&d, config, class_, proc->flags, &flow))
		return broken();
	count_verdict(proc, &d, &flow);
	if (d.report)
		aegis_report(proc, NULL, config, &d, &flow);
	return d.verdict == AEGIS_VERDICT_BLOCKED ? AEGIS_DENY : AEGIS_ALLOW;
}

/* ---- the judge: for the differential proof, and for sockets older than the hooks ---- */

/*
 * What was not refused is silenced by itself: the first refusal must be told. Not inlined:
 * classify() and this must not share the 512 bytes of stack.
 */
static __noinline bool
is_old_news(struct aegis_proc *proc, struct decision *d, const struct flow *flow)
{
	struct aegis_detent_key key = {};
	__u64 suppressed;

	if (!d->report || !d->detent_s)
		return false;
	if (d->verdict == AEGIS_VERDICT_BLOCKED)
		d->verdict = AEGIS_VERDICT_WOULD_BLOCK;
	fill_detent_key(&key, proc, d, flow);
	return !begin_detent(&key, bpf_ktime_get_boot_ns(), d->detent_s * 1000000000ULL,
			     &suppressed);
}

/*
 * Answers judgements[args[0]]. Not a `syscall` program: those are sleepable, and
 * the verifier refuses an LPM trie in sleepable programs (kernel-facts A).
 */
SEC("raw_tp/aegis_judge")
int aegis_judge(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 index = ctx->args[0];
	struct aegis_judge *question = bpf_map_lookup_elem(&judgements, &index);
	struct aegis_config *config = current_config();
	struct flow flow = {};
	struct decision d = {};
	__u64 class_;

	if (!question || !config)
		return 0;
	class_ = classify(&question->proc, config);
	if (CLASS_FLAG(class_, AEGIS_CLASS_CONDITIONAL))
		class_ = with_conditions(class_, &question->proc, config, question->uid,
					 id_of(&units, &question->unit));
	__builtin_memcpy(flow.addr, question->addr, sizeof(flow.addr));
	flow.port = question->port;
	flow.protocol = question->protocol;
	flow.hook = question->hook;
	flow.direction = question->direction;
	__builtin_memcpy(flow.rest_addr, question->rest_addr, sizeof(flow.rest_addr));
	if (!aegis_decide(&d, config, class_, question->proc.flags, &flow))
		return 0;
	question->generation = config->generation;
	question->app = d.app;
	question->verdict = d.verdict;
	question->reason = d.reason;
	question->actions = d.actions;
	question->scope = d.scope;
	question->report = d.report;
	question->silent = question->existing && is_old_news(&question->proc, &d, &flow);
	return 1;
}
