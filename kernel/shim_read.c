// SPDX-License-Identifier: Apache-2.0
/* Whole hash maps, read in batches: a system call for thousands of entries instead of two each. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include "shim.h"

enum { BATCH = 4096 };			/* far above the entries of one bucket, which go together */

struct reader {
	size_t key_size, value_size, capacity, count;
	const uint32_t *skip;
	char *keys, *values;
	uint64_t *sum;			/* NULL: none wanted */
};

/* FNV-1a, then mixed: to be added up. */
static uint64_t hash_of(uint64_t hash, const char *data, size_t size)
{
	while (size--)
		hash = (hash ^ (unsigned char)*data++) * 0x100000001b3ULL;
	return hash ^ hash >> 29;
}

static uint64_t hash_of_entry(const char *key, size_t key_size,
			      const char *value, size_t value_size)
{
	return hash_of(hash_of(0xcbf29ce484222325ULL, key, key_size), value, value_size);
}

static int keep(struct reader *reader, const char *key, const char *value)
{
	if (reader->skip && !memcmp(key, reader->skip, sizeof(*reader->skip)))
		return 0;
	if (reader->sum)
		*reader->sum += hash_of_entry(key, reader->key_size, value, reader->value_size);
	if (reader->count == reader->capacity)
		return -ENOSPC;
	if (!reader->keys) {		/* asked how many there are */
		reader->count++;
		return 0;
	}
	memmove(reader->keys + reader->count * reader->key_size, key, reader->key_size);
	memmove(reader->values + reader->count * reader->value_size, value, reader->value_size);
	reader->count++;
	return 0;
}

static int read_batches(struct reader *reader, int fd, char *keys, char *values)
{
	char cursor[64];		/* a number for a hash, a key for a trie */
	uint32_t got, i;
	bool first = true;
	int err, full;

	do {
		got = BATCH;
		err = bpf_map_lookup_batch(fd, first ? NULL : cursor, cursor, keys, values,
					   &got, NULL);
		if (err && err != -ENOENT)	/* ENOENT: these were the last ones */
			return err;
		for (i = 0; i < got; i++) {
			full = keep(reader, keys + i * reader->key_size,
				    values + i * reader->value_size);
			if (full)
				return full;
		}
		first = false;
	} while (!err);
	return 0;
}

static int read_all(struct reader *reader, int fd)
{
	char *batch = malloc(BATCH * (reader->key_size + reader->value_size));
	int err;

	if (!batch)
		return -ENOMEM;
	err = read_batches(reader, fd, batch, batch + BATCH * reader->key_size);
	free(batch);
	return err ? err : (int)reader->count;
}

int aegis_map_read(int fd, size_t key_size, size_t value_size, const uint32_t *skip,
		   char *keys, char *values, size_t capacity)
{
	struct reader reader = { key_size, value_size, capacity, 0, skip, keys, values, NULL };

	return read_all(&reader, fd);
}

int aegis_map_batch(int fd, size_t key_size, size_t value_size, const uint32_t *skip,
		    char *cursor, int *more, char *keys, char *values, size_t count)
{
	struct reader reader = { key_size, value_size, count, 0, skip, keys, values, NULL };
	uint32_t got = count, i;
	int err = bpf_map_lookup_batch(fd, *more ? cursor : NULL, cursor, keys, values, &got, NULL);

	if (err && err != -ENOENT)
		return err;
	*more = !err;
	for (i = 0; i < got; i++)	/* in place: never ahead of what is read */
		keep(&reader, keys + i * key_size, values + i * value_size);
	return reader.count;
}

int aegis_map_digest(int fd, size_t key_size, size_t value_size, uint64_t *sum)
{
	struct reader reader = { key_size, value_size, INT_MAX, 0, NULL, NULL, NULL, sum };

	*sum = 0;
	return read_all(&reader, fd);
}

uint64_t aegis_digest(const char *keys, size_t key_size,
		      const char *values, size_t value_size, size_t count)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < count; i++)
		sum += hash_of_entry(keys + i * key_size, key_size,
				     values + i * value_size, value_size);
	return sum;
}

struct span {
	uint32_t since, before;		/* epochs */
};

static uint64_t counted_in(const struct span *span, const struct aegis_history_key *key,
			   const struct aegis_history *sum)
{
	return key->epoch >= span->since && key->epoch < span->before ? sum->count : 0;
}

static int count_slots(int fd, const struct span *span, uint64_t *decisions)
{
	struct aegis_slot *slots = malloc(BATCH * sizeof(*slots));
	uint32_t *places = malloc(BATCH * sizeof(*places)), got, i;
	int err = slots && places ? 0 : -ENOMEM, more = 0;
	char cursor[64];

	while (!err) {
		got = BATCH;
		err = bpf_map_lookup_batch(fd, more ? cursor : NULL, cursor, places, slots, &got,
					   NULL);
		for (i = 0; (!err || err == -ENOENT) && i < got; i++)
			if (slots[i].state == AEGIS_SLOT_READY)
				*decisions += counted_in(span, &slots[i].key, &slots[i].sum);
		more = 1;
	}
	free(places);
	free(slots);
	return err == -ENOENT ? 0 : err;
}

static int count_entries(int fd, const struct span *span, uint64_t *decisions)
{
	struct aegis_history_key *keys = malloc(BATCH * sizeof(*keys));
	struct aegis_history *sums = malloc(BATCH * sizeof(*sums));
	int got = keys && sums ? 0 : -ENOMEM, more = 0, i;
	char cursor[64];

	if (!got) {
		do {
			got = aegis_map_batch(fd, sizeof(*keys), sizeof(*sums), NULL, cursor, &more,
					      (char *)keys, (char *)sums, BATCH);
			for (i = 0; i < got; i++)
				*decisions += counted_in(span, &keys[i], &sums[i]);
		} while (got >= 0 && more);
	}
	free(sums);
	free(keys);
	return got < 0 ? got : 0;
}

int aegis_count_sums(int history_fd, int slots_fd, uint32_t since, uint32_t before,
		     uint64_t *decisions)
{
	struct span span = { since, before };
	int err;

	*decisions = 0;
	err = count_entries(history_fd, &span, decisions);
	return err ? err : count_slots(slots_fd, &span, decisions);
}

int aegis_map_count(int fd, size_t key_size, size_t value_size)
{
	return aegis_map_read(fd, key_size, value_size, NULL, NULL, NULL, INT_MAX);
}
