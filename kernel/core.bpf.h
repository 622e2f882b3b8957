/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few kernel structs we read, and nothing of them that we do not. CO-RE
 * finds each field by name in the running kernel's BTF, so no vmlinux.h is
 * needed and one object serves every kernel.
 */
#ifndef AEGIS_CORE_BPF_H
#define AEGIS_CORE_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "aegis.h"

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_ALG 38
#define AF_VSOCK 40
#define AF_XDP 44
#define SOCK_RAW 3
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define TCP_ESTABLISHED 1		/* include/net/tcp_states.h; also a connected UDP socket */
#define TCP_LISTEN 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define PF_KTHREAD 0x00200000		/* include/linux/sched.h */
#define EPERM 1
#define E2BIG 7
#define SIGKILL 9
#define S_IWGRP_OR_OTH 022
#define AEGIS_KERNEL_PROGRAM "[kernel]"	/* aegis/policy/model.py says the same; tests compare */
#define FUSE_SUPER_MAGIC 0x65735546

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	unsigned int val;
} kuid_t;

struct user_namespace {
	int level;
};

struct super_block {
	unsigned int s_dev;
	unsigned long s_magic;
	struct user_namespace *s_user_ns;
};

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	unsigned long i_ino;
	unsigned int i_nlink;
	struct super_block *i_sb;
};

struct qstr {
	unsigned int len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mnt_namespace {
	struct user_namespace *user_ns;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct pid_namespace {
	struct user_namespace *user_ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct fs_struct {
	struct path root;
};

struct mm_struct {
	unsigned long arg_start, arg_end;
	struct file *exe_file;
};

struct signal_struct {
	atomic_t live;
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	unsigned int flags;
	int tgid;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	__u64 start_boottime;
	char comm[16];
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct signal_struct *signal;
	struct css_set *cgroups;
	const struct cred *cred;
	struct files_struct *files;
	struct pid *thread_pid;
	__u64 self_exec_id;		/* a u64 since v5.7 */
};

struct cred {
	kuid_t uid;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

typedef struct {
	long long counter;
} atomic64_t;

struct sock_common {
	atomic64_t skc_cookie;
	__u32 skc_daddr, skc_rcv_saddr;
	__u16 skc_dport, skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	unsigned char sk_userlocks : 4;
	unsigned short sk_protocol;
	struct sock_cgroup_data sk_cgrp_data;
};

struct mptcp_sock {			/* begins with a struct sock */
	struct sock *first;
};

struct socket {
	struct sock *sk;
};

struct linux_binprm {
	struct file *file;
	const char *filename;		/* as given to execve */
	const char *interp;		/* differs for #! and binfmt_misc */
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

static __always_inline __u64 start_of(struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	return BPF_CORE_READ(leader, start_boottime);
}

/*
 * Zeroes, but unknown ones to the verifier: a failed read clears its target. Every context that a
 * bpf_loop() callback changes starts like this. Before v6.7 (ab5cfac139ab "bpf: verify callbacks
 * as if they are called unknown number of times") the callback is followed once, from the values
 * the context has at first, and branches that seem impossible then are removed from the program.
 */
static __always_inline void clear_unknown(void *context, __u32 size)
{
	bpf_probe_read_kernel(context, size, (void *)0);
}

/* Addresses are 16 bytes; the context's must be read word by word. */
#define copy_v6(to, from)	\
	((to)[0] = (from)[0], (to)[1] = (from)[1], (to)[2] = (from)[2], (to)[3] = (from)[3])

static __always_inline void set_v4(__u32 to[4], __u32 addr)
{
	to[2] = bpf_htonl(0xffff);
	to[3] = addr;
}

#endif
