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

static int keep(struct reader *reader, const char *key, const char *value)
{
	if (reader->skip && !memcmp(key, reader->skip, sizeof(*reader->skip)))
		return 0;
	if (reader->sum)
		*reader->sum += hash_of(hash_of(0xcbf29ce484222325ULL, key, reader->key_size),
					value, reader->value_size);
	if (reader->count == reader->capacity)
		return -ENOSPC;
	if (!reader->keys) {		/* asked how many there are */
		reader->count++;
		return 0;
	}
	memcpy(reader->keys + reader->count * reader->key_size, key, reader->key_size);
	memcpy(reader->values + reader->count * reader->value_size, value, reader->value_size);
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

int aegis_map_digest(int fd, size_t key_size, size_t value_size, uint64_t *sum)
{
	struct reader reader = { key_size, value_size, INT_MAX, 0, NULL, NULL, NULL, sum };

	*sum = 0;
	return read_all(&reader, fd);
}

int aegis_map_count(int fd, size_t key_size, size_t value_size)
{
	return aegis_map_read(fd, key_size, value_size, NULL, NULL, NULL, INT_MAX);
}
