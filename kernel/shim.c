/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/membarrier.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "aegis.skel.h"
#include "shim.h"

struct aegis_object {
	struct aegis_bpf *skeleton;
};

const char *aegis_abi(void)
{
	return AEGIS_ABI;		/* from build.py */
}

static char log_text[16384];
static char log_taken[sizeof(log_text)];
static size_t log_length;

/* The verifier's last lines name the defect: when full, the oldest go. */
static int keep_log(enum libbpf_print_level level, const char *format, va_list args)
{
	const size_t room = sizeof(log_text) - 1;
	size_t length, kept;
	char *text, *tail;
	int printed;

	if (level > LIBBPF_WARN)
		return 0;
	printed = vasprintf(&text, format, args);
	if (printed < 0)
		return 0;
	length = (size_t)printed < room ? (size_t)printed : room;
	tail = text + printed - length;
	kept = log_length + length <= room ? log_length : room - length;
	memmove(log_text, log_text + log_length - kept, kept);
	memcpy(log_text + kept, tail, length);
	log_length = kept + length;
	free(text);
	return 0;
}

const char *aegis_log(void)
{
	memcpy(log_taken, log_text, log_length);
	log_taken[log_length] = 0;
	log_length = 0;
	return log_taken;
}

struct aegis_object *aegis_open(void)
{
	struct aegis_object *object = calloc(1, sizeof(*object));

	if (!object)
		return NULL;
	libbpf_set_print(keep_log);
	object->skeleton = aegis_bpf__open();
	if (!object->skeleton) {
		free(object);
		return NULL;
	}
	return object;
}

static struct bpf_map *find_map(struct aegis_object *object, const char *name)
{
	return bpf_object__find_map_by_name(object->skeleton->obj, name);
}

static struct bpf_program *find_program(struct aegis_object *object, const char *name)
{
	return bpf_object__find_program_by_name(object->skeleton->obj, name);
}

int aegis_reuse_map(struct aegis_object *object, const char *name, int fd)
{
	struct bpf_map *map = find_map(object, name);

	return map ? bpf_map__reuse_fd(map, fd) : -ENOENT;
}

int aegis_load(struct aegis_object *object)
{
	return aegis_bpf__load(object->skeleton);
}

void aegis_close(struct aegis_object *object)
{
	if (!object)
		return;
	aegis_bpf__destroy(object->skeleton);
	free(object);
}

int aegis_map_fd(struct aegis_object *object, const char *name)
{
	struct bpf_map *map = find_map(object, name);

	return map ? bpf_map__fd(map) : -ENOENT;
}

int aegis_program_fd(struct aegis_object *object, const char *name)
{
	struct bpf_program *program = find_program(object, name);

	return program ? bpf_program__fd(program) : -ENOENT;
}

int aegis_attach_cgroup(struct aegis_object *object, const char *name, int cgroup_fd)
{
	struct bpf_program *program = find_program(object, name);

	if (!program)
		return -ENOENT;
	/* A link implies allow-multi: other tools' programs stay attached. */
	return bpf_link_create(bpf_program__fd(program), cgroup_fd,
			       bpf_program__expected_attach_type(program), NULL);
}

int aegis_attach_tracing(struct aegis_object *object, const char *name)
{
	struct bpf_program *program = find_program(object, name);

	return program ? bpf_raw_tracepoint_open(NULL, bpf_program__fd(program)) : -ENOENT;
}

int aegis_link_update(int link_fd, int program_fd)
{
	return bpf_link_update(link_fd, program_fd, NULL);
}

int aegis_link_detach(int link_fd)
{
	return bpf_link_detach(link_fd);
}

int aegis_link_attached(int link_fd)
{
	struct bpf_link_info info = {};
	__u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(link_fd, &info, &size))
		return -errno;
	return info.type != BPF_LINK_TYPE_CGROUP || info.cgroup.cgroup_id;
}

int aegis_pin(int fd, const char *path)
{
	return bpf_obj_pin(fd, path);
}

int aegis_get_pinned(const char *path)
{
	return bpf_obj_get(path);
}

int aegis_mount_bpffs(const char *path)
{
	return mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") ? -errno : 0;
}

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

int aegis_run(int program_fd, uint64_t argument)
{
	LIBBPF_OPTS(bpf_test_run_opts, options,
		.ctx_in = &argument,
		.ctx_size_in = sizeof(argument),
	);
	int err = bpf_prog_test_run_opts(program_fd, &options);

	return err ? err : (int)options.retval;
}

int aegis_iterator(int program_fd)
{
	int link_fd = bpf_link_create(program_fd, 0, BPF_TRACE_ITER, NULL), iterator_fd;

	if (link_fd < 0)
		return link_fd;
	iterator_fd = bpf_iter_create(link_fd);
	close(link_fd);
	return iterator_fd;
}

int aegis_iterate(int program_fd)
{
	int iterator_fd = aegis_iterator(program_fd);
	char nothing[64];
	ssize_t length;

	if (iterator_fd < 0)
		return iterator_fd;
	do {
		length = read(iterator_fd, nothing, sizeof(nothing));
	} while (length > 0 || (length < 0 && (errno == EINTR || errno == EAGAIN)));
	length = length < 0 ? -errno : 0;
	close(iterator_fd);
	return length;
}

int aegis_barrier(void)
{
	/*
	 * GLOBAL is synchronize_rcu(); measured necessary between a flip and the
	 * delete of the old generation (kernel-facts F). nohz_full hosts answer
	 * EINVAL: a second is far beyond any grace period a program can need.
	 */
	if (!syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		return 0;
	sleep(1);
	return 0;
}

struct aegis_ring {
	struct ring_buffer *buffer;
	size_t size, capacity, count;
	char *records;
	bool malformed;
};

/* A negative return consumes the record all the same: store it first. */
static int store_record(void *context, void *data, size_t size)
{
	struct aegis_ring *ring = context;

	if (size != ring->size) {
		ring->malformed = true;
		return 0;
	}
	memcpy(ring->records + ring->count * size, data, size);
	return ++ring->count == ring->capacity ? -EAGAIN : 0;
}

struct aegis_ring *aegis_ring_open(int map_fd, size_t size)
{
	struct aegis_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	ring->size = size;
	ring->buffer = ring_buffer__new(map_fd, store_record, ring, NULL);
	if (!ring->buffer) {
		free(ring);
		return NULL;
	}
	return ring;
}

int aegis_ring_fd(struct aegis_ring *ring)
{
	return ring_buffer__epoll_fd(ring->buffer);
}

int aegis_ring_drain(struct aegis_ring *ring, char *records, size_t capacity)
{
	int err;

	ring->records = records;
	ring->capacity = capacity;
	ring->count = 0;
	err = ring_buffer__consume(ring->buffer);
	if (ring->malformed)
		return -EPROTO;
	return err < 0 && err != -EAGAIN ? err : (int)ring->count;
}

void aegis_ring_close(struct aegis_ring *ring)
{
	if (!ring)
		return;
	ring_buffer__free(ring->buffer);
	free(ring);
}
