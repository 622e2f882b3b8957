/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every type and number that crosses the kernel/user boundary, once. Read by
 * clang (the BPF object), gcc (the shim) and cffi (with AEGIS_CDEF defined).
 *
 * Enumerators, not macros: macros reach neither BTF nor cffi. Structs are
 * widest first, padding spelled out, never packed. Unless a comment says
 * otherwise integers are host order and addresses are 16 bytes in network
 * order, IPv4 as ::ffff:a.b.c.d.
 */
#ifndef AEGIS_H
#define AEGIS_H

#ifndef AEGIS_CDEF
#include <linux/types.h>
#endif

enum aegis_limit {
	AEGIS_APPS_MAX = 4097,		/* rules of one generation, app 0 included */
	AEGIS_NAME_SIZE = 64,		/* base name, NUL included */
	AEGIS_PATH_SIZE = 256,		/* path or selector text, NUL included */
	AEGIS_CMDLINE_SIZE = 512,	/* stored arguments, each ended by a NUL */
	AEGIS_UNIT_SIZE = 128,		/* systemd unit name, NUL included */
	AEGIS_MASKS_MAX = 64,		/* selector combinations of one generation */
	AEGIS_DIR_PAGES = 64,		/* pages of one port directory */
	AEGIS_PAGE_PORTS = 1024,	/* ports of one page */
	AEGIS_PAGE_WORDS = 16,		/* AEGIS_PAGE_PORTS bits as __u64 */
	AEGIS_DIRS_MAX = 4096,		/* port directories of one generation */
	AEGIS_PAGES_MAX = 8192,		/* port pages of one generation */
	AEGIS_HOSTS_MAX = 131072,	/* exact addresses, two generations */
	AEGIS_NETS_MAX = 131072,	/* prefixes, two generations */
	AEGIS_RULES_MAX = 32768,	/* selector keys, two generations */
	AEGIS_STRINGS_MAX = 16384,	/* selector texts of one kind */
	AEGIS_PROCS_MAX = 131072,	/* processes whose identity is kept */
	AEGIS_SPARED_MAX = 1024,	/* the agent and the processes it descends from */
	AEGIS_DETENT_MAX = 16384,	/* reports remembered for detent */
	AEGIS_LISTENERS_MAX = 16384,	/* bound sockets whose owner is kept */
	AEGIS_PEERS_MAX = 16384,	/* who lately spoke to which UDP socket, and whom it spoke to */
	AEGIS_HISTORY_MAX = 65536,	/* aggregates between two sweeps of the agent */
	AEGIS_HISTORY_FREE = 49152,	/* up to here nobody has to leave room for others' */
	AEGIS_HISTORY_FULL = 64512,	/* from here on only sums of what has no room of its own */
	AEGIS_HISTORY_SHARE = 2048,	/* new flows of a process in an epoch, before it has to */
	AEGIS_ASKERS = 64,		/* of one CPU; see asker.bpf.h */
	AEGIS_SLOTS = 4096,		/* of one epoch; see history.bpf.h */
	AEGIS_PROGRAMS_MAX = 16384,	/* programs with a number for history */
	AEGIS_RING_BYTES = 8388608,	/* event ring; a power of two pages */
	AEGIS_RING_NOISY = 2883584,	/* of it for processes over their share, see report.bpf.h */
	AEGIS_SHARE = 12288,		/* that share: reports of a process in two seconds or so */
	AEGIS_NOISY_MAX = 64,		/* processes that lost reports and are named */
	AEGIS_EVENT_HEAD = 256,		/* of an event, before its texts */
	AEGIS_SHORT_PATH = 112,		/* of a short event's texts: NUL included */
	AEGIS_SHORT_CMDLINE = 144,
	AEGIS_SHORT_EVENT = 512,
	AEGIS_JUDGE_MAX = 64,		/* questions judged in one test run */
};

/* Also the hook's return value: zeroed memory denies. */
enum aegis_return {
	AEGIS_DENY = 0,
	AEGIS_ALLOW = 1,
};

enum aegis_verdict {
	AEGIS_VERDICT_BLOCKED = 0,
	AEGIS_VERDICT_ALLOWED = 1,
	AEGIS_VERDICT_WOULD_BLOCK = 2,
};

enum aegis_mode {
	AEGIS_MODE_ENFORCE = 0,
	AEGIS_MODE_OBSERVE = 1,
};

enum aegis_direction {
	AEGIS_DIRECTION_OUT = 0,
	AEGIS_DIRECTION_IN = 1,
};

/* What a port set is about. */
enum aegis_scope {
	AEGIS_SCOPE_REMOTE = 0,		/* outbound, not loopback */
	AEGIS_SCOPE_LOCAL = 1,		/* outbound, loopback or unspecified */
	AEGIS_SCOPE_LISTEN = 2,		/* inbound: our own port */
	AEGIS_SCOPE_PEER = 3,		/* inbound: who connects; ports are "any" */
	AEGIS_SCOPE_LISTS = 4,		/* scopes before this one have lists of ports */
	AEGIS_SCOPE_SOCKET = 4,		/* making a socket other than TCP's or UDP's */
};

enum aegis_protocol {			/* IANA numbers, and Linux's for MPTCP */
	AEGIS_PROTOCOL_ICMP = 1,
	AEGIS_PROTOCOL_TCP = 6,
	AEGIS_PROTOCOL_UDP = 17,
	AEGIS_PROTOCOL_DCCP = 33,
	AEGIS_PROTOCOL_ICMPV6 = 58,
	AEGIS_PROTOCOL_SCTP = 132,
	AEGIS_PROTOCOL_UDPLITE = 136,
	AEGIS_PROTOCOL_MPTCP = 262,
};

enum aegis_action {			/* bits */
	AEGIS_ACTION_LOG = 1,
	AEGIS_ACTION_NOTIFY = 2,
	AEGIS_ACTION_SCRIPT = 4,
	AEGIS_ACTION_BLOCK = 8,
	AEGIS_ACTION_KILL = 16,
	AEGIS_ACTION_ALLOW = 32,
	AEGIS_ACTION_AGENT_KILLS = 64,	/* with KILL: not the kernel, for the agent looks first */
};

/* Why a verdict was reached. */
enum aegis_reason {
	AEGIS_REASON_RULE_DENIES = 0,	/* the program's rule does not list it */
	AEGIS_REASON_RULE_ALLOWS = 1,
	AEGIS_REASON_WHITELIST = 2,	/* destination in [whitelist] */
	AEGIS_REASON_PROGRAM = 3,	/* [whitelist] programs, or ignore = true */
	AEGIS_REASON_UNCONFIGURED = 4,	/* no rule for this program */
	AEGIS_REASON_UNTRUSTED = 5,	/* the rule would allow, the file may not claim it */
	AEGIS_REASON_HARMLESS = 6,	/* UDP connect to port 0, ICMP echo, an answer, not watched */
};

enum aegis_hook {
	AEGIS_HOOK_CONNECT = 0,
	AEGIS_HOOK_SENDMSG = 1,
	AEGIS_HOOK_SOCKET = 2,		/* socket() */
	AEGIS_HOOK_BIND = 3,		/* bind(): nobody came yet */
	AEGIS_HOOK_LISTEN = 4,		/* listen(): nobody came yet */
	/* From here on somebody else acted first: what comes after may compare with this one. */
	AEGIS_HOOK_INGRESS = 5,		/* a packet from a peer, before the socket gets it */
	AEGIS_HOOK_ACCEPT = 6,		/* a peer's handshake is done */
	AEGIS_HOOK_RECVMSG = 7,		/* a process took a peer's datagram */
	AEGIS_HOOK_EXISTING = 8,	/* none: user space found it, older than all of them */
	AEGIS_HOOK_RECEIVE = 9,		/* another process hands over a socket */
	AEGIS_HOOK_SELF_TEST = 10,	/* no decision: a child of the agent, refused as a proof */
};

/* Kinds of sockets a rule may allow; bits, in the order of the words of `sockets`. */
enum aegis_socket {
	AEGIS_SOCKET_SCTP = 1,
	AEGIS_SOCKET_DCCP = 2,
	AEGIS_SOCKET_UDPLITE = 4,
	AEGIS_SOCKET_RAW = 8,
	AEGIS_SOCKET_PACKET = 16,
	AEGIS_SOCKET_ICMP = 32,		/* raw, but of ICMP only */
	AEGIS_SOCKET_VSOCK = 64,
	AEGIS_SOCKET_OTHER = 128,	/* none of these: L2TP, Bluetooth, CAN, ... */
};

/* Identity flags, taken from the executed file at exec. */
enum aegis_identity {
	AEGIS_ID_HOST_FS = 1,		/* reached in the host's own root file system */
	AEGIS_ID_TRUSTED = 2,		/* HOST_FS, root's, not writable by others */
	AEGIS_ID_SEEDED = 4,		/* older than the agent: read from the live process */
	AEGIS_ID_LOST = 8,		/* table was full: nothing can be claimed */
	AEGIS_ID_KTHREAD = 16,
	AEGIS_ID_SCRIPT = 32,		/* cmdline holds a script at script_off */
	AEGIS_ID_PATH_CUT = 64,		/* path is the tail of a longer one: matches no path */
	AEGIS_ID_NAME_CUT = 128,	/* base name over AEGIS_NAME_SIZE: matches no exe */
	AEGIS_ID_CMDLINE_CUT = 256,	/* cmdline is the head of a longer one */
	AEGIS_ID_CMDLINE_LOST = 512,	/* arguments could not be read: matches no cmdline */
	AEGIS_ID_UNLINKED = 1024,	/* file had no name left (memfd, deleted) */
	AEGIS_ID_ARGV0_FALSE = 2048,	/* argv[0] is not what was executed: no cmdline grants */
	AEGIS_ID_CANARY = 4096,		/* set by the agent: to be refused, see canary.bpf.h */
};

/* Which selectors a rule has; bits of aegis_rule_key.mask. */
enum aegis_selector {
	AEGIS_SELECT_EXE = 1,
	AEGIS_SELECT_CMDLINE = 2,
	AEGIS_SELECT_PATH = 4,		/* in the host's root file system */
	AEGIS_SELECT_USER = 8,
	AEGIS_SELECT_UNIT = 16,
	AEGIS_SELECT_ANY_PATH = 32,	/* the same path, wherever */
	AEGIS_SELECT_WHITELIST = 64,	/* [whitelist] programs, not a rule */
	AEGIS_SELECT_SHADOW = 128,	/* user or unit left out: "ask again at connect" */
};

enum aegis_app_flag {
	AEGIS_APP_STRICT = 1,		/* [whitelist] does not apply */
	AEGIS_APP_IGNORE = 2,
	AEGIS_APP_NEEDS_TRUST = 4,	/* untrusted files get no permissions from it */
	AEGIS_APP_NEEDS_ARGV0 = 8,	/* nor do those with a false argv[0] */
	AEGIS_APP_HOSTS = 256,		/* << scope: the app has exact addresses there */
	AEGIS_APP_NETS = 4096,		/* << scope: the app has prefixes there */
};

enum aegis_class_flag {
	AEGIS_CLASS_WHITELISTED = 1,	/* named by [whitelist] programs, and trusted */
	AEGIS_CLASS_CONDITIONAL = 2,	/* a rule with user or unit may be stronger */
};

enum aegis_counter {
	AEGIS_COUNTER_DECIDED = 0,	/* = emitted + suppressed + lost + quiet */
	AEGIS_COUNTER_EMITTED = 1,
	AEGIS_COUNTER_SUPPRESSED = 2,	/* by detent */
	AEGIS_COUNTER_LOST = 3,		/* the ring was full; the verdict stood */
	AEGIS_COUNTER_QUIET = 4,	/* on the map, or nothing to say */
	AEGIS_COUNTER_ALLOWED = 5,	/* decided = allowed + blocked + would_block */
	AEGIS_COUNTER_BLOCKED = 6,
	AEGIS_COUNTER_WOULD_BLOCK = 7,
	AEGIS_COUNTER_IDENTITY_LOST = 8, /* exec or fork not recorded: table full */
	AEGIS_COUNTER_IDENTITY_MISSING = 9, /* decisions without a recorded identity */
	AEGIS_COUNTER_DETENT_FAILED = 10, /* no detent entry: reported anew */
	AEGIS_COUNTER_BROKEN = 11,	/* blocked and lost: a table that must be there was not */
	AEGIS_COUNTER_HISTORY_LOST = 12, /* decided = counts in history + this */
	AEGIS_COUNTER_SELF_TEST = 13,	/* refused as a proof; not in any other of these */
	AEGIS_COUNTER_HISTORY_FOLDED = 14, /* in history, but as of "any other" destination */
	AEGIS_COUNTER_PLAIN = 15,	/* as decided, allowed and quiet at once, and in none of them */
	AEGIS_COUNTER_MAX = 16,
};

/* One for each CPU; their sum is the truth. */
struct aegis_counters {
	__u64 value[16];		/* by enum aegis_counter */
};

/*
 * A set of ports for each protocol. lo | hi << 16 is the range lo..hi; 0 is
 * the empty set; lo == 0 with hi != 0 is port directory number hi.
 */
struct aegis_ports {
	__u32 tcp;
	__u32 udp;
};

/* One generation's constants; generations alternate between two slots. */
struct aegis_config {
	__u64 expires_boot_ns;		/* on trial: from then on the other slot's; 0: for good */
	__u32 generation;
	__u32 mode;			/* enum aegis_mode */
	__u32 mask_count;
	__u32 kill_budget;		/* kills in a minute */
	__u8 unconfigured_actions;	/* enum aegis_action bits */
	__u8 has_cmdline;		/* some mask has AEGIS_SELECT_CMDLINE */
	__u8 refuses_inbound;		/* some program may be refused an inbound packet */
	__u8 watches_inbound;		/* somebody is told who comes; else no program runs for it */
	__u8 deny_socket_fds;		/* lsm.bpf.c: no sockets from other processes */
	__u8 masks[64];			/* enum aegis_selector bits in use */
	__u8 pad[3];
};

/* App 0 is the whitelist: what every program may reach. */
struct aegis_app {
	__u64 rule_id;			/* the same rule, whatever the generation */
	__u32 detent_s;
	__u16 flags;			/* enum aegis_app_flag */
	__u8 actions;			/* enum aegis_action bits */
	__u8 sockets;			/* enum aegis_socket bits it may make */
	struct aegis_ports base[4];	/* by enum aegis_scope: any address */
};

/* Exact address; also the data of an LPM key. */
struct aegis_host_key {
	__u32 generation;
	__u16 app;
	__u8 scope;			/* enum aegis_scope */
	__u8 pad;
	__u8 addr[16];
};

struct aegis_net_key {
	__u32 prefixlen;		/* 64 + bits of the 128-bit address */
	struct aegis_host_key host;
};

struct aegis_port_dir {
	__u16 page[64];
};

struct aegis_port_page {
	__u64 word[16];
};

/* Which selectors lead to which app; ids are 0 where the mask lacks the bit. */
struct aegis_rule_key {
	__u32 generation;
	__u32 mask;			/* enum aegis_selector bits */
	__u32 exe;
	__u32 cmdline;
	__u32 path;
	__u32 uid;
	__u32 unit;
	__u32 pad;
};

struct aegis_name {
	char text[64];
};

struct aegis_text {
	char text[256];
};

struct aegis_unit {
	char text[128];
};

#ifndef AEGIS_CDEF			/* cffi cannot read this */
_Static_assert(sizeof(struct aegis_config) == 96, "config ABI");
_Static_assert(sizeof(struct aegis_app) == 48, "app ABI");
_Static_assert(sizeof(struct aegis_net_key) == 28, "net key ABI");
#endif

#include "optional.h"
#include "records.h"
#include "guard.h"

#endif
