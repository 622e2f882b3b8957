// SPDX-License-Identifier: GPL-2.0-only
/*
 * Optional: what only a security hook sees. Shares every map but `place` with
 * aegis.bpf.c. Loads and attaches also where the BPF LSM is not active, and then
 * never runs: selftest.bpf.h.
 */
#include "verdict.bpf.h"
#include "selftest.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* The cgroup we are attached to: security hooks are the whole machine's. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} place SEC(".maps");

static __always_inline bool is_governed(void)
{
	return bpf_current_task_under_cgroup(&place, 0) == 1;
}

/* Local by nature: proxies may be reached through them, networks may not. */
static __always_inline bool is_local_family(__u32 family)
{
	return family == AF_UNIX || family == AF_NETLINK || family == AF_ALG;
}

/* Count, tell, and answer as a security hook does. */
static __always_inline int
conclude(struct aegis_proc *proc, struct aegis_config *config, struct decision *d,
	 struct flow *flow)
{
	count_verdict(proc, d, flow);
	if (d->report)
		aegis_report(proc, NULL, config, d, flow);
	return d->verdict == AEGIS_VERDICT_BLOCKED ? -EPERM : 0;
}

/* ---- socket(): families that no cgroup hook sees ---- */

/* An enum aegis_socket bit; what `sockets` calls packet sees the wire. */
static __always_inline __u16 kind_of(int family)
{
	switch (family) {
	case AF_PACKET:
	case AF_XDP:
		return AEGIS_SOCKET_PACKET;
	case AF_VSOCK:
		return AEGIS_SOCKET_VSOCK;
	default:
		return AEGIS_SOCKET_OTHER;
	}
}

SEC("lsm/socket_create")
int BPF_PROG(aegis_socket_create, int family, int type, int protocol, int kern, int ret)
{
	struct aegis_config *config = current_config();
	struct flow flow = {};
	struct decision d = {};
	struct aegis_proc *proc;

	show_running(AEGIS_OPTIONAL_SOCKET_CREATE);
	/* IPv4 and IPv6 are the cgroup hook's; a kernel socket is nobody's doing. */
	if (ret || kern || family == AF_INET || family == AF_INET6 || is_local_family(family) ||
	    !config || !is_governed())
		return ret;
	proc = current_proc();
	flow.hook = AEGIS_HOOK_SOCKET;
	flow.port = kind_of(family);
	if (!proc || !aegis_decide(&d, config, class_of(proc, NULL, config), proc->flags, &flow)) {
		broken();
		return -EPERM;
	}
	return conclude(proc, config, &d, &flow);
}

/* ---- sockets other processes hand over: SCM_RIGHTS, pidfd_getfd() ---- */

/* Where it leads, for the report; all zero unless connected. */
static __always_inline void fill_socket_flow(struct flow *flow, struct sock *sk)
{
	flow->hook = AEGIS_HOOK_RECEIVE;
	flow->protocol = protocol_of(BPF_CORE_READ(sk, sk_protocol));
	flow->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	flow->rest_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET) {
		set_v4(flow->addr, BPF_CORE_READ(sk, __sk_common.skc_daddr));
		set_v4(flow->rest_addr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	} else if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&flow->addr, sk, __sk_common.skc_v6_daddr);
		BPF_CORE_READ_INTO(&flow->rest_addr, sk, __sk_common.skc_v6_rcv_saddr);
	}
}

/*
 * Not aegis_decide(): it is not about where to. A rule that blocks refuses; that
 * another process sends something must never kill the receiver.
 */
static __always_inline bool
refuses_sockets(struct decision *d, struct aegis_config *config, __u64 class_)
{
	struct aegis_app *app = app_row(config->generation, (__u16)class_);

	if (!app || !(__u16)class_ || app->flags & AEGIS_APP_IGNORE ||
	    !(app->actions & (AEGIS_ACTION_BLOCK | AEGIS_ACTION_KILL)))
		return false;
	if (CLASS_FLAG(class_, AEGIS_CLASS_WHITELISTED) && !(app->flags & AEGIS_APP_STRICT))
		return false;
	d->app = class_;
	d->reason = AEGIS_REASON_RULE_DENIES;
	d->rule_id = app->rule_id;
	d->detent_s = app->detent_s;
	d->actions = app->actions;
	d->verdict = verdict_for(app->actions, config->mode);
	d->report = true;
	return true;
}

SEC("lsm/file_receive")
int BPF_PROG(aegis_file_receive, struct file *file, int ret)
{
	struct aegis_config *config = current_config();
	struct socket *socket = bpf_sock_from_file(file);
	struct aegis_proc *proc;
	struct flow flow = {};
	struct decision d = {};
	struct sock *sk;

	show_running(AEGIS_OPTIONAL_FILE_RECEIVE);
	if (ret || !socket || !config || !config->deny_socket_fds || !is_governed())
		return ret;
	sk = BPF_CORE_READ(socket, sk);
	if (is_local_family(BPF_CORE_READ(sk, __sk_common.skc_family)))
		return 0;
	proc = current_proc();
	if (!proc)
		return 0;		/* it cannot be: the agent has made an entry for the unknown */
	if (!refuses_sockets(&d, config, class_of(proc, NULL, config)))
		return 0;
	fill_socket_flow(&flow, sk);
	d.scope = scope_of(flow.addr);
	return conclude(proc, config, &d, &flow);
}
