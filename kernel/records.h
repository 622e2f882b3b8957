/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel keeps and tells: processes, sockets, events, answers. Part of
 * aegis.h, whose rules hold here too.
 */
#ifndef AEGIS_RECORDS_H
#define AEGIS_RECORDS_H

/* A process, as the kernel saw it at exec; key: tgid. */
struct aegis_proc {
	__u64 class_;			/* generation << 32 | flags << 16 | app */
	__u64 start_boot_ns;		/* of the thread group leader */
	__u64 exec_boot_ns;		/* 0 when seeded */
	__u64 kill_boot_ns;		/* when its kill was last asked for; 0: never */
	__u64 exec_id;			/* task->self_exec_id by then; another: an exec was missed */
	__u64 inode;
	__u32 device;			/* kernel encoding: major << 20 | minor */
	__u32 flags;			/* enum aegis_identity */
	__u16 cmdline_len;		/* bytes, last NUL included */
	__u16 script_off;		/* into cmdline, with AEGIS_ID_SCRIPT */
	__u16 root_off;			/* into path: as seen from its own root; 0: the same */
	__u16 doomed;			/* marked for tracing.bpf.c to kill */
	struct aegis_name exe;		/* base name, zero padded: a map key */
	__u32 share_window;		/* which its reports are counted in, and how many */
	__u32 share_used;
	__u32 program;			/* its number in `programs`; 0: none yet */
	__u32 flows_epoch;		/* of history, which its new flows are counted in */
	__u32 flows;
	__u32 lasting;			/* with the path, a struct aegis_program: set for its number */
	struct aegis_text path;		/* zero padded: a map key */
	char cmdline[512];
};

/* What a connect() must know of a process's entry; kept by each CPU: asker.bpf.h. */
struct aegis_asker {
	__u64 start_boot_ns;
	__u64 execs;			/* of the machine, until then */
	__u64 exec_id;
	__u64 question;			/* see question_of() */
	__u32 tgid;
	__u32 program;
	__u64 writes;			/* begun and ended: odd while one goes on */
};

/* Whose a bound socket is, beside the process itself; key: the socket's cookie. */
struct aegis_owner {
	__u64 cgroup_id;
	__u32 tgid;
	__u32 ppid;
	__u32 uid;
	__u32 from_init;		/* an init bound it: it may be meant for a service */
	struct aegis_unit unit;
};

/* A TCP port that is listened on. */
struct aegis_port_key {
	__u64 netns_cookie;
	__u16 port;
	__u8 pad[6];
};

/* In the storage of a socket: which bound one it is, or comes from. */
struct aegis_label {
	__u64 cookie;			/* of the bound socket */
	struct aegis_port_key port;	/* where `served` has its cookie; port 0: nowhere */
};

/* A UDP socket and somebody else. */
struct aegis_peer_key {
	__u64 cookie;
	__u8 addr[16];
	__u16 port;
	__u8 pad[6];
};

struct aegis_peer {
	__u32 generation;		/* which let it speak to us; 0: it did not */
	__u32 sent;			/* we spoke to it */
};

struct aegis_detent_key {
	__u64 rule_id;			/* 0: unconfigured */
	__u64 inode;			/* of the executed file */
	__u32 device;
	__u16 port;
	__u8 direction;
	__u8 protocol;
	__u8 verdict;
	__u8 scope;
	__u8 pad[6];
	__u8 addr[16];
};

struct aegis_detent {
	__u64 reported_boot_ns;		/* 0: never */
	__u64 suppressed;		/* since then */
};

/* A program as history knows it, whatever its process: key of `programs`. */
struct aegis_program {
	__u32 identity;			/* enum aegis_identity bits, the lasting ones */
	struct aegis_text path;
};

enum aegis_sum {
	AEGIS_SUM_FLOW = 0,
	AEGIS_SUM_SOCKET = 1,		/* socket(): the port is an enum aegis_socket bit */
	AEGIS_SUM_REST = 2,		/* what had no room of its own: no address, no port */
};

/* What one program did alike in one epoch. The epoch comes first: aegis_map_read() skips by it. */
struct aegis_history_key {
	__u32 epoch;
	__u32 program;			/* a number of `programs`; 0: that table was full */
	__u16 port;
	__u8 direction;
	__u8 protocol;
	__u8 verdict;
	__u8 kind;			/* enum aegis_sum */
	__u8 pad[2];
	__u8 addr[16];
};

struct aegis_history {
	__u64 count;
	__u64 reports;			/* of them off the map: emitted, suppressed or lost */
	__u64 first_boot_ns;
	__u64 last_boot_ns;		/* to the jiffy */
	__u64 last_jiffies;
};

enum aegis_slot_state {
	AEGIS_SLOT_FREE = 0,
	AEGIS_SLOT_CLAIMED = 1,		/* being filled in */
	AEGIS_SLOT_READY = 2,
};

/* A sum that is found without a search: the first flow that comes to it has it for the epoch. */
struct aegis_slot {
	struct aegis_history_key key;
	struct aegis_history sum;
	__u64 asked;			/* connect() of whom was allowed this: history.bpf.h; 0: none */
	__u64 state;			/* enum aegis_slot_state */
};

/* Written by the agent: decided = taken + counts in epochs from *untaken* on + history_lost. */
struct aegis_epoch {
	__u64 taken;			/* decisions of all epochs before *untaken*: safe in user space */
	__u32 current;
	__u32 untaken;
};

/*
 * Most events have short texts, and are AEGIS_SHORT_EVENT bytes in the ring: the head, the
 * beginning of the path and that of the arguments. Whoever reads makes them whole again.
 */
struct aegis_event {
	__u64 boot_ns;			/* bpf_ktime_get_boot_ns() of the decision */
	__u64 start_boot_ns;		/* of the process */
	__u64 exec_boot_ns;
	__u64 suppressed;		/* like this one since the last report */
	__u64 inode;
	__u32 device;
	__u32 generation;
	__u32 identity;			/* enum aegis_identity */
	__u16 app;
	__u16 dport;
	__u16 sport;			/* 0: not bound yet */
	__u16 cmdline_len;
	__u16 script_off;
	__u8 hook;			/* enum aegis_hook */
	__u8 direction;
	__u8 protocol;			/* IANA */
	__u8 scope;
	__u8 verdict;
	__u8 reason;
	__u8 actions;
	__u8 mode;
	__u8 silent;			/* detent: to be killed, not to be reported */
	__u8 kill;			/* enum aegis_kill */
	__u8 daddr[16];
	__u8 saddr[16];			/* all zero: not bound yet */
	struct aegis_owner owner;	/* whose socket it is: the caller's, but for inbound packets */
	struct aegis_text path;
	char cmdline[512];
};

/* A governed socket that a process holds, as the iterator tells of it. */
struct aegis_held {
	__u64 cookie;			/* of the socket */
	__u64 carrier;			/* of the one to destroy: MPTCP's first; 0: it has none yet */
	__u64 start_boot_ns;		/* of the process */
	struct aegis_owner owner;
	__u32 netns;			/* of the socket; inode number */
	__u32 device;			/* it is bound to; 0: none */
	__u16 family;			/* AF_INET, AF_INET6 */
	__u16 protocol;			/* enum aegis_protocol */
	__u16 local_port;
	__u16 remote_port;
	__u8 state;			/* include/net/tcp_states.h, also for UDP */
	__u8 accepted;			/* TCP: what accept() returned */
	__u8 bound;			/* its port was asked for, with bind() */
	__u8 pad[5];
	__u8 local_addr[16];
	__u8 remote_addr[16];
};

/*
 * What the agent found out: where it runs (the file system the policy's paths
 * are meant in, its cgroup), and what works here.
 */
struct aegis_host {
	__u64 root_dentry;		/* 0: the agent is in a chroot, or not learnt yet */
	__u64 cgroup_id;		/* where the hooks are attached */
	__u32 kill;			/* enum aegis_kill: the best that works */
	__u32 pad;
};

/* The kernel's own, apart: what the agent writes it reads back. */
struct aegis_budget {
	__u64 begun_boot_ns;		/* the minute that kills are counted in */
	__u32 kills;			/* in it */
	__u32 pad;
};

/* Whose reports were lost, until the agent told of it; key: tgid. */
struct aegis_noisy {
	__u64 lost;
	struct aegis_text path;
};

/* The agent's own note, for the next one: what it had told of. */
struct aegis_watch {
	__u64 boot_ns;			/* when it looked; 0: never */
	__u64 value[16];		/* what the counters were then */
};

/* A question to the judge program: the same code as the hooks, outside of them. */
struct aegis_judge {
	struct aegis_proc proc;		/* in: strings and flags */
	struct aegis_unit unit;		/* in */
	__u32 uid;			/* in */
	__u16 port;			/* in; for AEGIS_HOOK_SOCKET an enum aegis_socket bit */
	__u8 direction;			/* in */
	__u8 protocol;			/* in */
	__u8 addr[16];			/* in */
	__u32 generation;		/* out */
	__u16 app;			/* out */
	__u8 verdict;			/* out */
	__u8 reason;			/* out */
	__u8 actions;			/* out */
	__u8 scope;			/* out */
	__u8 report;			/* out: an event would be raised */
	__u8 hook;			/* in: enum aegis_hook */
	__u8 existing;			/* in: a real socket, older than the hooks */
	__u8 silent;			/* out, of an existing one: detent silences the report */
	__u8 pad[2];
	__u8 rest_addr[16];		/* in, of an existing one: our own address */
};

#ifndef AEGIS_CDEF			/* cffi cannot read this */
_Static_assert(sizeof(struct aegis_proc) == 920, "proc ABI");
_Static_assert(__builtin_offsetof(struct aegis_proc, path) ==
	       __builtin_offsetof(struct aegis_proc, lasting) +
	       __builtin_offsetof(struct aegis_program, path), "a program inside a process");
_Static_assert(sizeof(struct aegis_history_key) == 32, "history ABI");
_Static_assert(sizeof(struct aegis_detent_key) == 48, "detent ABI");
_Static_assert(sizeof(struct aegis_owner) == 152, "owner ABI");
_Static_assert(sizeof(struct aegis_peer_key) == 32, "peer ABI");
_Static_assert(sizeof(struct aegis_event) == 1024, "event ABI");
_Static_assert(__builtin_offsetof(struct aegis_event, path) == AEGIS_EVENT_HEAD, "event ABI");
_Static_assert(AEGIS_EVENT_HEAD + AEGIS_SHORT_PATH + AEGIS_SHORT_CMDLINE == AEGIS_SHORT_EVENT,
	       "event ABI");
#endif

#endif
