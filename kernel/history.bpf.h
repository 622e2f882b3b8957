/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * History: every decision is added up, told or quiet, so that a full ring costs
 * detail and never a fact. Nothing here changes a verdict.
 *
 * The agent takes the sums in whole epochs: it opens the next one, waits until no
 * program is left in the old one (aegis_barrier()), and only then reads and
 * deletes it. So no sum is ever read and added to at the same time.
 *
 * Most flows have a slot, which is found without a hash table's search: 8 ns where
 * that takes 40 to 50. What finds its slot taken by another flow is in the table.
 *
 * A slot also keeps by whom its flow was last asked for with a connect() that was allowed
 * and quiet. To decide is the dearest part of a connect(), the more so the more prefixes
 * there are; the same question need not be decided twice. aegis_decide() answers by the
 * flow, which is the slot's key, and by what question_of() holds (asker.bpf.h): the rest is
 * constant in a generation.
 */
#ifndef AEGIS_HISTORY_BPF_H
#define AEGIS_HISTORY_BPF_H

#include "asker.bpf.h"
#include "decide.bpf.h"

/* What makes two programs of one path two: a file in a chroot, a process older than us. */
#define LASTING (AEGIS_ID_HOST_FS | AEGIS_ID_TRUSTED | AEGIS_ID_SEEDED | AEGIS_ID_LOST | \
		 AEGIS_ID_KTHREAD | AEGIS_ID_PATH_CUT | AEGIS_ID_UNLINKED)

static __always_inline void add_to(struct aegis_history *sum, bool reports)
{
	__u64 now = bpf_jiffies64();

	__sync_fetch_and_add(&sum->count, 1);
	if (reports)
		__sync_fetch_and_add(&sum->reports, 1);
	/* To read the clock costs as much as all else here: once a jiffy is enough. */
	if (READ_ONCE(sum->last_jiffies) != now) {
		WRITE_ONCE(sum->last_jiffies, now);
		WRITE_ONCE(sum->last_boot_ns, bpf_ktime_get_boot_ns());
	}
}

/*
 * Give *proc* the number of its program; it stays 0 when the table is full. Not in
 * a global function: 6.1 takes no memory that one was given for a key. The entry comes first and then its number, so that none is used up in vain.
 */
static __noinline int number_program(struct aegis_proc *proc)
{
	struct aegis_program *program = (void *)&proc->lasting;	/* too big for a stack */
	__u32 zero = 0, *number, *given = bpf_map_lookup_elem(&program_count, &zero);

	proc->lasting = proc->flags & LASTING;
	number = bpf_map_lookup_elem(&programs, program);
	if (!number) {
		bpf_map_update_elem(&programs, program, &zero, BPF_NOEXIST);
		number = bpf_map_lookup_elem(&programs, program);
	}
	if (!number || !given)
		return 0;
	if (!READ_ONCE(*number))
		__sync_val_compare_and_swap(number, 0, __sync_fetch_and_add(given, 1) + 1);
	WRITE_ONCE(proc->program, READ_ONCE(*number));
	return 0;
}

static __always_inline struct aegis_slot *slot_of(const struct aegis_history_key *key)
{
	const __u64 *word = (const void *)key;
	/* Any odd numbers with many bits set: the top of the product depends on all of a word. */
	__u64 mixed = (word[0] * 0x9e3779b97f4a7c15ULL ^ word[1] * 0xc2b2ae3d27d4eb4fULL ^
		       word[2] * 0x165667b19e3779f9ULL ^ word[3]) * 0xd6e8feb86659fd93ULL;
	__u32 index = (key->epoch & 1) * AEGIS_SLOTS + mixed / (~0ULL / AEGIS_SLOTS + 1);

	return bpf_map_lookup_elem(&slots, &index);
}

static __always_inline bool
has_slot(const struct aegis_slot *slot, const struct aegis_history_key *key)
{
	const __u64 *mine = (const void *)&slot->key, *word = (const void *)key;

	return READ_ONCE(slot->state) == AEGIS_SLOT_READY && mine[0] == word[0] &&
	       mine[1] == word[1] && mine[2] == word[2] && mine[3] == word[3];
}

/*
 * Two CPUs may come with the same flow at once, and one finds the slot claimed: then
 * the flow has two sums, which the agent adds up.
 */
static __always_inline bool
claim_slot(struct aegis_slot *slot, const struct aegis_history_key *key,
	   const struct aegis_history *fresh)
{
	if (READ_ONCE(slot->state) != AEGIS_SLOT_FREE ||
	    __sync_val_compare_and_swap(&slot->state, AEGIS_SLOT_FREE, AEGIS_SLOT_CLAIMED))
		return false;
	slot->key = *key;
	slot->sum = *fresh;
	slot->asked = 0;
	__sync_lock_test_and_set(&slot->state, AEGIS_SLOT_READY);	/* orders the above */
	return true;
}

/* False: there is no room for one more. Of both epochs: the closed one's go when they are safe. */
static __always_inline bool
add_entry(const struct aegis_history_key *key, const struct aegis_history *fresh, __u32 room)
{
	__u32 mine = key->epoch & 1, other = !mine;
	__u32 *fill = bpf_map_lookup_elem(&history_fill, &mine);
	__u32 *rest = bpf_map_lookup_elem(&history_fill, &other);

	if (!fill || !rest || READ_ONCE(*fill) + READ_ONCE(*rest) >= room ||
	    bpf_map_update_elem(&history, key, fresh, BPF_NOEXIST))
		return false;
	__sync_fetch_and_add(fill, 1);
	return true;
}

/*
 * A new flow of *proc*. Who has many leaves slots and room in the table to those who have
 * few. Counted loosely: by a process's threads at once, some are missed.
 */
static __always_inline bool
begin_sum(struct aegis_proc *proc, struct aegis_slot *slot, const struct aegis_history_key *key,
	  const struct aegis_history *fresh)
{
	bool many;

	if (READ_ONCE(proc->flows_epoch) != key->epoch) {
		WRITE_ONCE(proc->flows_epoch, key->epoch);
		WRITE_ONCE(proc->flows, 0);
	}
	many = READ_ONCE(proc->flows) >= AEGIS_HISTORY_SHARE;
	if (!many && claim_slot(slot, key, fresh)) {
		WRITE_ONCE(proc->flows, proc->flows + 1);
		return true;
	}
	if (!add_entry(key, fresh, many ? AEGIS_HISTORY_FREE : AEGIS_HISTORY_FULL))
		return false;
	WRITE_ONCE(proc->flows, proc->flows + 1);
	return true;
}

static __always_inline bool add_to_old(const struct aegis_history_key *key, bool reports)
{
	struct aegis_history *sum = bpf_map_lookup_elem(&history, key);

	if (sum)
		add_to(sum, reports);
	return sum;
}

/* The flow has no slot, or not yet one. */
static __noinline int
search_sum(struct aegis_proc *proc, struct aegis_slot *slot, struct aegis_history_key *key,
	   bool reports)
{
	struct aegis_history fresh = { .count = 1, .reports = reports };

	if (add_to_old(key, reports))
		return 0;
	fresh.first_boot_ns = fresh.last_boot_ns = bpf_ktime_get_boot_ns();
	fresh.last_jiffies = bpf_jiffies64();
	if (begin_sum(proc, slot, key, &fresh) ||
	    add_to_old(key, reports))		/* another CPU was first */
		return 0;
	/* Where to is not known then; that it was, and of which program, is. */
	key->kind = AEGIS_SUM_REST;
	key->port = 0;
	__builtin_memset(key->addr, 0, sizeof(key->addr));
	if (add_to_old(key, reports) || add_entry(key, &fresh, AEGIS_HISTORY_MAX) ||
	    add_to_old(key, reports))
		count(AEGIS_COUNTER_HISTORY_FOLDED);
	else
		count(AEGIS_COUNTER_HISTORY_LOST);
	return 0;
}

static __always_inline void
fill_history_key(struct aegis_history_key *key, __u32 program, const struct flow *flow,
		 enum aegis_verdict verdict)
{
	__u32 zero = 0;
	struct aegis_epoch *now = bpf_map_lookup_elem(&epoch, &zero);

	if (now)
		key->epoch = READ_ONCE(now->current);
	key->program = program;
	key->port = flow->port;
	key->direction = flow->direction;
	key->protocol = flow->protocol;
	key->verdict = verdict;
	key->kind = flow->hook == AEGIS_HOOK_SOCKET ? AEGIS_SUM_SOCKET : AEGIS_SUM_FLOW;
	__builtin_memcpy(key->addr, flow->addr, sizeof(key->addr));
}

/*
 * Whether this connect() of the current process was asked before, and allowed without a word:
 * then it is added up. False says nothing.
 * A slot that is ready has one key for as long as a program that read the epoch runs.
 */
__noinline int aegis_recall(struct aegis_config *config, struct flow *flow)
{
	struct aegis_history_key key __attribute__((aligned(8))) = {};
	struct aegis_slot *slot;
	struct asker asker;

	if (!config || !flow || !find_asker(&asker, config->generation))
		return false;
	fill_history_key(&key, asker.program, flow, AEGIS_VERDICT_ALLOWED);
	slot = slot_of(&key);
	if (!slot || !has_slot(slot, &key) || READ_ONCE(slot->asked) != asker.question)
		return false;
	add_to(&slot->sum, false);
	return true;
}

/*
 * *asked*: of a connect() the question_of(), else 0: the other hooks may allow more.
 * A global function: verified once, and not for each way into it.
 */
__noinline int
aegis_remember(struct aegis_proc *proc, struct decision *d, struct flow *flow, __u64 asked)
{
	struct aegis_history_key key __attribute__((aligned(8))) = {};
	struct aegis_slot *slot;

	if (!proc || !d || !flow)
		return 0;
	fill_history_key(&key, READ_ONCE(proc->program), flow, d->verdict);
	slot = slot_of(&key);
	if (!slot)
		return 0;		/* cannot be: the index is in range */
	if (!has_slot(slot, &key))
		return search_sum(proc, slot, &key, d->report);
	add_to(&slot->sum, d->report);
	if (asked && d->verdict == AEGIS_VERDICT_ALLOWED && !d->report)
		WRITE_ONCE(slot->asked, asked);
	return 0;
}

#endif
