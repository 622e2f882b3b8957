/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose a bound socket is. Packets come in no process's name, so bind() and
 * listen() leave the caller's identity with the socket, by its cookie; what
 * comes is judged as what was left there.
 */
#ifndef AEGIS_OWNER_BPF_H
#define AEGIS_OWNER_BPF_H

#include "verdict.bpf.h"

/* The init of its pid namespace, one that no user made for himself. */
static __always_inline bool is_init(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *own = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
			   level * bpf_core_type_size(struct upid);

	return BPF_CORE_READ(own, nr) == 1 && BPF_CORE_READ(own, ns, user_ns, level) == 0;
}

/* *task* is the owner from now on; *proc* is what is known of it. */
static __always_inline void
give_socket(__u64 cookie, struct aegis_proc *proc, struct task_struct *task)
{
	struct aegis_owner owner = {}, *before = bpf_map_lookup_elem(&owners, &cookie);

	fill_owner(&owner, task);
	owner.from_init = (before && before->from_init) || is_init(task);
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

/* ---- which listener a TCP connection comes from ---- */

static __always_inline bool is_listener(__u64 cookie)
{
	return bpf_map_lookup_elem(&owners, &cookie) != NULL;
}

/*
 * The first to listen on a port has it in `served`. Others, on other addresses or by
 * SO_REUSEPORT, leave their cookie with all they accept, at the price of an allocation for
 * each connection: so each one's are told apart, and most are found by their port. *sk*: struct bpf_sock or
 * struct sock.
 */
static __always_inline void
serve(void *sk, struct aegis_label *label, const struct aegis_port_key *key)
{
	__u64 *server, first, cookie = label->cookie, nobodys = 0;

	server = bpf_map_lookup_elem(&served, key);
	first = server ? READ_ONCE(*server) : 0;
	if (first == cookie)
		return;
	/* The second: one whose end was not seen. */
	if (server ? !is_listener(first) &&
		     __sync_val_compare_and_swap(server, first, cookie) == first :
		     !bpf_map_update_elem(&served, key, &cookie, BPF_NOEXIST)) {
		label->port = *key;
		return;
	}
	label = bpf_sk_storage_get(&inherited, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (label) {
		label->cookie = cookie;
		return;
	}
	count(AEGIS_COUNTER_IDENTITY_LOST);
	bpf_map_update_elem(&served, key, &nobodys, BPF_ANY);	/* and not the first one's */
}

/* ---- sockets that an init bound for a service ---- */

enum { HANDED_FDS = 64 };		/* systemd's begin at 3 */

struct handing {
	struct task_struct *task;
	struct aegis_proc *proc;
	struct file **files;
	__u32 count;
};

static long take_socket(__u32 fd, struct handing *handing)
{
	struct file **files = handing->files, *file = NULL;
	struct aegis_owner *owner;
	struct socket *socket;
	__u64 cookie;

	if (fd >= handing->count)
		return 1;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	cookie = BPF_CORE_READ(socket, sk, __sk_common.skc_cookie.counter);
	owner = bpf_map_lookup_elem(&owners, &cookie);
	if (cookie && owner && owner->from_init)
		give_socket(cookie, handing->proc, handing->task);
	return 0;
}

/*
 * Socket activation: an init binds and listens, the service it starts accepts.
 * Only from an init to its child: a server's helper that inherits a listener by
 * mistake must not become its owner.
 */
static __always_inline void take_sockets(struct aegis_proc *proc, struct task_struct *task)
{
	struct files_struct *files = BPF_CORE_READ(task, files);
	struct fdtable *table = BPF_CORE_READ(files, fdt);
	struct handing handing;

	if (!is_init(BPF_CORE_READ(task, real_parent)))
		return;
	clear_unknown(&handing, sizeof(handing));
	handing.task = (void *)bpf_get_current_task();
	handing.proc = proc;
	handing.files = BPF_CORE_READ(table, fd);
	handing.count = BPF_CORE_READ(table, max_fds);
	bpf_loop(HANDED_FDS, take_socket, &handing, 0);
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

static __always_inline bool is_inet(struct sock *sk)
{
	unsigned short family = sk->__sk_common.skc_family;

	return family == AF_INET || family == AF_INET6;
}

/* Whether it was made below our cgroup, so that the hooks would see what it does. */
static __always_inline bool is_governed(struct sock *sk)
{
	__u32 zero = 0;
	struct aegis_host *host_ = bpf_map_lookup_elem(&host, &zero);
	struct ancestry search;

	if (!host_)
		return false;
	clear_unknown(&search, sizeof(search));
	search.cgroup = sk->sk_cgrp_data.cgroup;
	search.wanted = host_->cgroup_id;
	bpf_loop(UNIT_LEVELS, ancestry_step, &search, 0);
	return search.found;
}

/* Only what is bound below our cgroup: nobody would tell us of the end of others. */
static __always_inline bool is_ours(struct sock *sk)
{
	if (!is_inet(sk) || !sk->__sk_common.skc_num)
		return false;
	if (sk->sk_protocol == AEGIS_PROTOCOL_UDP ? sk->__sk_common.skc_state == TCP_ESTABLISHED :
						    sk->__sk_common.skc_state != TCP_LISTEN)
		return false;
	return is_governed(sk);
}

/* One that systemd holds for a service, too, is the service's. */
SEC("iter/task_file")
int aegis_seed_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct aegis_port_key port = {};
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
	label = bpf_sk_storage_get(&labels, socket->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!label) {
		count(AEGIS_COUNTER_IDENTITY_LOST);
		return 0;
	}
	label->cookie = cookie;
	if (socket->sk->sk_protocol != AEGIS_PROTOCOL_UDP) {
		port.netns_cookie = BPF_CORE_READ(socket->sk, __sk_common.skc_net.net, net_cookie);
		port.port = socket->sk->__sk_common.skc_num;
		serve(socket->sk, label, &port);
	}
	owner = bpf_map_lookup_elem(&owners, &cookie);
	if (owner && owner->tgid != 1)
		return 0;
	tgid = task->tgid;
	/* Read, it is a number: a typed pointer is not taken for one. */
	give_socket(cookie, bpf_map_lookup_elem(&procs, &tgid), BPF_CORE_READ(task, group_leader));
	return 0;
}

/* ---- MPTCP: a worker of the kernel connects further subflows, in the owner's stead ---- */

/*
 * Who connects an MPTCP socket owns it from then on. Returns the cookie of the one a kernel
 * thread connects a subflow of, else 0. socket() made it: what is older than us has none.
 */
static __noinline __u64 aegis_subflow_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *subflow = ctx->sk;
	bool is_kthread;
	struct sock *sk;
	__u64 cookie;

	if (!subflow || !bpf_core_type_exists(struct mptcp_sock))
		return 0;
	sk = (void *)bpf_skc_to_mptcp_sock(subflow);
	if (!sk)
		return 0;
	cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	is_kthread = bpf_get_current_task_btf()->flags & PF_KTHREAD;
	if (cookie && !is_kthread)
		label_socket((void *)sk, cookie);
	return is_kthread ? cookie : 0;
}

/* ---- the end of a socket ---- */

SEC("cgroup/sock_release")
int aegis_release(struct bpf_sock *ctx)
{
	struct aegis_label *label = bpf_sk_storage_get(&labels, ctx, NULL, 0);
	struct aegis_port_key port;
	__u64 cookie, *server;

	if (!label)
		return 1;
	cookie = label->cookie;
	port = label->port;
	server = port.port ? bpf_map_lookup_elem(&served, &port) : NULL;
	if (server && READ_ONCE(*server) == cookie)
		bpf_map_delete_elem(&served, &port);
	bpf_map_delete_elem(&listeners, &cookie);
	bpf_map_delete_elem(&owners, &cookie);
	return 1;
}

#endif
