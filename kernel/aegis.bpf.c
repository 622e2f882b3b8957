// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hooks. Each parses its context and calls one function; the ideas are in
 * identity.bpf.h (who), classify.bpf.h (which rule), decide.bpf.h (verdict)
 * and report.bpf.h (telling).
 */
#include "core.bpf.h"
#include "identity.bpf.h"
#include "classify.bpf.h"
#include "decide.bpf.h"
#include "report.bpf.h"

char LICENSE[] SEC("license") = "GPL";

static __always_inline struct aegis_config *current_config(void)
{
	__u32 zero = 0, *generation = bpf_map_lookup_elem(&active, &zero), slot;

	slot = generation ? *generation & 1 : 0;
	return bpf_map_lookup_elem(&configs, &slot);
}

/* ---- identity ---- */

SEC("tp_btf/sched_process_exec")
int BPF_PROG(aegis_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	/* In place: nobody else reads it, since exec ended all other threads. */
	struct aegis_proc *proc = bpf_map_lookup_elem(&procs, &tgid);
	struct aegis_config *config = current_config();

	if (!proc)
		proc = new_proc(tgid);
	if (!proc || !config)
		return 0;
	fill_arguments(proc, BPF_CORE_READ(task, mm), bprm);
	fill_file(proc, BPF_CORE_READ(bprm, file), task);
	proc->start_boot_ns = start_of(task);
	proc->exec_boot_ns = bpf_ktime_get_boot_ns();
	proc->kill_boot_ns = 0;
	WRITE_ONCE(proc->class_, classify(proc, config));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(aegis_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_tgid = BPF_CORE_READ(parent, tgid), tgid = BPF_CORE_READ(child, tgid);
	struct aegis_proc *proc;

	if (tgid == parent_tgid)	/* a thread */
		return 0;
	proc = bpf_map_lookup_elem(&procs, &parent_tgid);
	if (!proc) {			/* a parent older than us, not seeded yet */
		proc = new_proc(tgid);
		if (proc) {
			fill_live(proc, child);
			proc->flags |= AEGIS_ID_CMDLINE_LOST;
		}
		return 0;
	}
	/* The child does not run yet: nobody sees the parent's start time in it. */
	if (bpf_map_update_elem(&procs, &tgid, proc, BPF_ANY)) {
		bpf_map_delete_elem(&procs, &tgid);
		count(AEGIS_COUNTER_IDENTITY_LOST);
		return 0;
	}
	proc = bpf_map_lookup_elem(&procs, &tgid);
	if (proc) {
		proc->start_boot_ns = start_of(child);
		proc->kill_boot_ns = 0;
	}
	return 0;
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
	if (mm) {
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

/* ---- verdicts ---- */

/* A rule with user or unit outranks the one by program alone if its number is higher. */
static __always_inline __u64
with_conditions(__u64 class_, struct aegis_proc *proc, struct aegis_config *config,
		__u32 uid, __u32 unit)
{
	__u16 app = classify_connecting(proc, config, uid, unit);

	return app > (__u16)class_ ? (class_ & ~0xffffULL) | app : class_;
}

/*
 * The caller's identity; tgid 0 never connects: its entry, made by the agent,
 * stands for a process that was not recorded. It claims nothing.
 */
static __always_inline struct aegis_proc *current_proc(void)
{
	/* Typed: plain loads instead of two helper calls, on every connect. */
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid, nobody = 0;
	struct aegis_proc *proc = bpf_map_lookup_elem(&procs, &tgid);

	if (proc && proc->start_boot_ns == task->group_leader->start_boottime)
		return proc;
	count(AEGIS_COUNTER_IDENTITY_MISSING);
	return bpf_map_lookup_elem(&procs, &nobody);
}

static __always_inline __u64 class_of(struct aegis_proc *proc, struct aegis_config *config)
{
	__u64 class_ = READ_ONCE(proc->class_);

	if (class_ >> 32 != config->generation) {
		class_ = classify(proc, config);
		WRITE_ONCE(proc->class_, class_);
	}
	if (CLASS_FLAG(class_, AEGIS_CLASS_CONDITIONAL))
		class_ = with_conditions(class_, proc, config, bpf_get_current_uid_gid(),
					 aegis_current_unit());
	return class_;
}

/* MPTCP (262) is TCP on the wire; what we do not know is judged as UDP, by its number. */
static __always_inline void
parse_flow(struct flow *flow, struct bpf_sock_addr *ctx, enum aegis_hook hook, bool is_v6)
{
	flow->hook = hook;
	flow->port = bpf_ntohs(ctx->user_port);
	flow->protocol = ctx->protocol == 262 ? AEGIS_PROTOCOL_TCP : ctx->protocol;
	if (is_v6) {
		flow->addr[0] = ctx->user_ip6[0];
		flow->addr[1] = ctx->user_ip6[1];
		flow->addr[2] = ctx->user_ip6[2];
		flow->addr[3] = ctx->user_ip6[3];
	} else {
		flow->addr[2] = bpf_htonl(0xffff);
		flow->addr[3] = ctx->user_ip4;
	}
	flow->scope = scope_of(flow->addr);
}

static __always_inline int broken(void)
{
	count(AEGIS_COUNTER_BROKEN);
	count(AEGIS_COUNTER_BLOCKED);
	count(AEGIS_COUNTER_LOST);
	return AEGIS_DENY;
}

static __always_inline int
verdict_of(struct bpf_sock_addr *ctx, enum aegis_hook hook, bool is_v6)
{
	struct aegis_config *config = current_config();
	struct aegis_proc *proc = current_proc();
	struct decision d = {};
	struct flow flow = {};
	__u64 class_;

	count(AEGIS_COUNTER_DECIDED);
	if (!config || !proc)
		return broken();
	/* Before the flow is parsed: the verifier follows each of its branches. */
	class_ = class_of(proc, config);
	parse_flow(&flow, ctx, hook, is_v6);
	if (!decide(&d, config, class_, proc->flags, &flow))
		return broken();
	count(d.verdict == AEGIS_VERDICT_BLOCKED ? AEGIS_COUNTER_BLOCKED :
	      d.verdict == AEGIS_VERDICT_ALLOWED ? AEGIS_COUNTER_ALLOWED :
	      AEGIS_COUNTER_WOULD_BLOCK);
	if (d.report)
		aegis_report(ctx, proc, config, &d, &flow);
	else
		count(AEGIS_COUNTER_QUIET);
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

/* ---- the judge: questions without sockets, for the differential proof ---- */

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
	flow.scope = question->scope_in ? question->scope_in : scope_of(flow.addr);
	if (!decide(&d, config, class_, question->proc.flags, &flow))
		return 0;
	question->generation = config->generation;
	question->app = d.app;
	question->verdict = d.verdict;
	question->reason = d.reason;
	question->actions = d.actions;
	question->scope = flow.scope;
	question->report = d.report;
	return 1;
}
