/* SPDX-License-Identifier: Apache-2.0 */
/* Maps: many entries in one call from Python. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "shim.h"

int aegis_map_fill(int fd, const char *keys, size_t key_size,
		   const char *values, size_t value_size, size_t count, uint64_t flags)
{
	size_t i;
	int err;

	for (i = 0; i < count; i++) {
		err = bpf_map_update_elem(fd, keys + i * key_size, values + i * value_size, flags);
		if (err)
			return err;
	}
	return count;
}

int aegis_map_verify(int fd, const char *keys, size_t key_size,
		     const char *values, size_t value_size, size_t count)
{
	char found[4096];
	size_t i;
	int err;

	if (value_size > sizeof(found))
		return -EINVAL;
	for (i = 0; i < count; i++) {
		err = bpf_map_lookup_elem(fd, keys + i * key_size, found);
		if (err)
			return err;
		if (memcmp(found, values + i * value_size, value_size))
			return -EILSEQ;
	}
	return 0;
}

int aegis_map_clear(int fd, const char *keys, size_t key_size, size_t count)
{
	size_t i;
	int err;

	for (i = 0; i < count; i++) {
		err = bpf_map_delete_elem(fd, keys + i * key_size);
		if (err && err != -ENOENT)
			return err;
	}
	return count;
}

int aegis_map_sweep(int fd, size_t key_size, size_t at, uint32_t keep)
{
	char keys[2][512], *key = keys[0], *next = keys[1], *swap;
	int err = bpf_map_get_next_key(fd, NULL, key), deleted = 0, end;

	if (key_size > sizeof(keys[0]) || at + sizeof(keep) > key_size)
		return -EINVAL;
	while (!err) {
		/* Before the delete: after a key that is gone, a walk begins anew. */
		end = bpf_map_get_next_key(fd, key, next);
		if (memcmp(key + at, &keep, sizeof(keep))) {
			err = bpf_map_delete_elem(fd, key);
			if (err && err != -ENOENT)
				return err;
			deleted++;
		}
		swap = key;
		key = next;
		next = swap;
		err = end;
	}
	return err == -ENOENT ? deleted : err;
}

int aegis_map_lookup(int fd, const char *key, char *value)
{
	return bpf_map_lookup_elem(fd, key, value);
}

int aegis_map_next_key(int fd, const char *key, char *next)
{
	return bpf_map_get_next_key(fd, key, next);
}

int aegis_sum_counters(int fd, uint64_t *sums)
{
	int cpus = libbpf_num_possible_cpus(), cpu, which, err;
	const int count = sizeof(struct aegis_counters) / sizeof(uint64_t);
	struct aegis_counters *counters;
	uint32_t zero = 0;

	if (cpus < 0)
		return cpus;
	counters = calloc(cpus, sizeof(*counters));
	if (!counters)
		return -ENOMEM;
	err = bpf_map_lookup_elem(fd, &zero, counters);
	for (which = 0; !err && which < count; which++) {
		sums[which] = 0;
		for (cpu = 0; cpu < cpus; cpu++)
			sums[which] += counters[cpu].value[which];
	}
	free(counters);
	return err;
}
