/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every map. Tables of a policy are double-buffered: the array tables have a
 * slot for each parity of the generation, the hash tables carry it in the key.
 * Nothing in force is ever written; a reload fills the other half and flips
 * the one cell of `active`.
 */
#ifndef AEGIS_MAPS_BPF_H
#define AEGIS_MAPS_BPF_H

#include "core.bpf.h"

#define AEGIS_MAP(name_, type_, key_, value_, max_, flags_)	\
struct {							\
	__uint(type, type_);					\
	__type(key, key_);					\
	__type(value, value_);					\
	__uint(max_entries, max_);				\
	__uint(map_flags, flags_);				\
} name_ SEC(".maps")

/* The policy: written by the agent, read here. */
AEGIS_MAP(active, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);	/* generation */
AEGIS_MAP(configs, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_config, 2, 0);
AEGIS_MAP(apps, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_app, 2 * AEGIS_APPS_MAX, 0);
AEGIS_MAP(hosts, BPF_MAP_TYPE_HASH, struct aegis_host_key, struct aegis_ports,
	  AEGIS_HOSTS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(nets, BPF_MAP_TYPE_LPM_TRIE, struct aegis_net_key, struct aegis_ports,
	  AEGIS_NETS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(port_dirs, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_port_dir,
	  2 * AEGIS_DIRS_MAX, 0);
AEGIS_MAP(port_pages, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_port_page,
	  2 * AEGIS_PAGES_MAX, 0);
AEGIS_MAP(rules, BPF_MAP_TYPE_HASH, struct aegis_rule_key, __u32,
	  AEGIS_RULES_MAX, BPF_F_NO_PREALLOC);

/* Selector texts to ids. An id means one text for as long as the map lives. */
AEGIS_MAP(exes, BPF_MAP_TYPE_HASH, struct aegis_name, __u32,
	  AEGIS_STRINGS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(paths, BPF_MAP_TYPE_HASH, struct aegis_text, __u32,
	  AEGIS_STRINGS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(cmdlines, BPF_MAP_TYPE_HASH, struct aegis_text, __u32,
	  AEGIS_STRINGS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(units, BPF_MAP_TYPE_HASH, struct aegis_unit, __u32,
	  AEGIS_STRINGS_MAX, BPF_F_NO_PREALLOC);

/* What happens: written here, read by the agent. */
AEGIS_MAP(procs, BPF_MAP_TYPE_HASH, __u32, struct aegis_proc,
	  AEGIS_PROCS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(execs, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0);	/* how many there were */
AEGIS_MAP(askers, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct aegis_asker, AEGIS_ASKERS, 0);
AEGIS_MAP(detents, BPF_MAP_TYPE_LRU_HASH, struct aegis_detent_key, struct aegis_detent,
	  AEGIS_DETENT_MAX, 0);
AEGIS_MAP(listeners, BPF_MAP_TYPE_HASH, __u64, struct aegis_proc,
	  AEGIS_LISTENERS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(owners, BPF_MAP_TYPE_HASH, __u64, struct aegis_owner,
	  AEGIS_LISTENERS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(served, BPF_MAP_TYPE_HASH, struct aegis_port_key, __u64,
	  AEGIS_LISTENERS_MAX, BPF_F_NO_PREALLOC);	/* by the socket of this cookie */
AEGIS_MAP(peers, BPF_MAP_TYPE_LRU_HASH, struct aegis_peer_key, struct aegis_peer,
	  AEGIS_PEERS_MAX, 0);
/* Not allocated beforehand: a quiet host needs none of its 8 MiB. */
AEGIS_MAP(history, BPF_MAP_TYPE_HASH, struct aegis_history_key, struct aegis_history,
	  AEGIS_HISTORY_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(history_fill, BPF_MAP_TYPE_ARRAY, __u32, __u32, 2, 0);	/* entries of each epoch */
AEGIS_MAP(slots, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_slot, 2 * AEGIS_SLOTS, 0);
AEGIS_MAP(epoch, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_epoch, 1, 0);
AEGIS_MAP(programs, BPF_MAP_TYPE_HASH, struct aegis_program, __u32,
	  AEGIS_PROGRAMS_MAX, BPF_F_NO_PREALLOC);
AEGIS_MAP(program_count, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);	/* numbers given out */
AEGIS_MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct aegis_counters, 1, 0);
AEGIS_MAP(host, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_host, 1, 0);
AEGIS_MAP(budget, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_budget, 1, 0);
AEGIS_MAP(noisy, BPF_MAP_TYPE_HASH, __u32, struct aegis_noisy, AEGIS_NOISY_MAX, 0);
AEGIS_MAP(spared, BPF_MAP_TYPE_HASH, __u32, struct aegis_spared, AEGIS_SPARED_MAX, 0);
AEGIS_MAP(self_tests, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_self_test, AEGIS_OPTIONAL_MAX, 0);
AEGIS_MAP(seeding, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_proc, 1, 0);	/* too big for a stack */
AEGIS_MAP(watch, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_watch, 1, 0);	/* no program's */
AEGIS_MAP(judgements, BPF_MAP_TYPE_ARRAY, __u32, struct aegis_judge,
	  AEGIS_JUDGE_MAX, BPF_F_MMAPABLE);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, AEGIS_RING_BYTES);
} events SEC(".maps");

#define AEGIS_SOCKET_MAP(name_, flags_)				\
struct {							\
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);			\
	__uint(map_flags, BPF_F_NO_PREALLOC | (flags_));	\
	__type(key, int);					\
	__type(value, struct aegis_label);			\
} name_ SEC(".maps")

AEGIS_SOCKET_MAP(labels, 0);
AEGIS_SOCKET_MAP(inherited, BPF_F_CLONE);	/* what they accept has it, too */

static __always_inline void count(enum aegis_counter which)
{
	__u32 zero = 0;
	struct aegis_counters *counters_ = bpf_map_lookup_elem(&counters, &zero);

	/*
	 * Cgroup programs can be preempted by others on the same CPU
	 * (migrate_disable only), so even per-CPU counters need an atomic add.
	 */
	if (counters_)
		__sync_fetch_and_add(&counters_->value[which], 1);
}

#endif
