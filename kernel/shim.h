/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Python may ask of libbpf and the kernel: few functions, plain types.
 * Every int is >= 0 on success and a negative errno on failure.
 */
#ifndef AEGIS_SHIM_H
#define AEGIS_SHIM_H

#ifndef AEGIS_CDEF
#include <stddef.h>
#include <stdint.h>
#include "aegis.h"
#endif

struct aegis_object;			/* one loaded BPF object, opaque */
struct aegis_ring;

/* Names the layout of all maps: equal names may share maps across agents. */
const char *aegis_abi(void);
/* Names the main object, byte for byte: equal names may share loaded programs. */
const char *aegis_build(void);

/* Life cycle: open kernel/NAME.bpf.c, reuse maps, load. NULL: see aegis_log(). */
struct aegis_object *aegis_open(const char *name);
int aegis_reuse_map(struct aegis_object *object, const char *name, int fd);
/* Has the maps of *object* be the loaded *owner*'s of the same names, where it has such. */
int aegis_share_maps(struct aegis_object *object, struct aegis_object *owner);
/* Before the load: what the constants in *section* are. */
int aegis_set_constants(struct aegis_object *object, const char *section,
			const char *value, size_t size);
/* Before the load: *program* is not to be loaded. */
int aegis_skip_program(struct aegis_object *object, const char *program);
int aegis_load(struct aegis_object *object);
/* After the load: the one entry of the cgroup array *map*. */
int aegis_set_cgroup(struct aegis_object *object, const char *map, int cgroup_fd);
void aegis_close(struct aegis_object *object);
/* libbpf's warnings since the last call, at most 16 KiB, the newest kept. */
const char *aegis_log(void);

/* 1 if programs at the connect and sendmsg hooks may send signals here, else 0. */
int aegis_can_signal(void);

/* File descriptors owned by the object. */
int aegis_map_fd(struct aegis_object *object, const char *name);
int aegis_program_fd(struct aegis_object *object, const char *name);

/* Names by number, from 0 on, of what an opened object has; NULL after the last. */
const char *aegis_program_name(struct aegis_object *object, int number);
const char *aegis_constants_name(struct aegis_object *object, int number);

/* What the kernel says of a program. *tag*: the kernel's digest of its instructions. */
struct aegis_program_info {
	uint32_t id;
	uint32_t map_count;
	uint8_t tag[8];
	uint32_t maps[64];		/* ids of those it uses */
};

int aegis_ask_program(int fd, struct aegis_program_info *about);
/* The id of a link's program. */
int aegis_link_program(int link_fd);
/* The kernel's own numbers, until the next boot. */
int aegis_link_number(int link_fd);
int aegis_map_number(int map_fd);
/* 1 if the map *fd* holds the constants *name* of *object*, as they are to be loaded, else 0. */
int aegis_has_constants(struct aegis_object *object, const char *name, int fd);
/* 1 if the map *fd* is of the type and the sizes of map *name*, else 0. */
int aegis_is_map(struct aegis_object *object, const char *name, int fd);

/* Links: each returns a new file descriptor. *program*: whose kind of hook it is. */
int aegis_attach_cgroup(struct aegis_object *object, const char *program, int program_fd,
			int cgroup_fd);
/* To what comes in; takes CAP_NET_ADMIN. */
int aegis_attach_packets(int program_fd, int cgroup_fd);
int aegis_attach_tracing(int program_fd);
int aegis_link_update(int link_fd, int program_fd);
int aegis_link_detach(int link_fd);
/* 1 while it runs; 0 once taken off its cgroup, though it may still be pinned. */
int aegis_link_attached(int link_fd);

/* Pins. */
int aegis_pin(int fd, const char *path);
int aegis_get_pinned(const char *path);
int aegis_mount_bpffs(const char *path);

/* Maps: *count* packed keys (and values). Returns how many were done, or -errno. */
int aegis_map_fill(int fd, const char *keys, size_t key_size,
		   const char *values, size_t value_size, size_t count, uint64_t flags);
/* Reads back: 0, or -EILSEQ when an entry is not what was filled in. */
int aegis_map_verify(int fd, const char *keys, size_t key_size,
		     const char *values, size_t value_size, size_t count);
int aegis_map_clear(int fd, const char *keys, size_t key_size, size_t count);
/* Deletes every entry whose key has another __u32 than *keep* at byte *at*. */
int aegis_map_sweep(int fd, size_t key_size, size_t at, uint32_t keep);
/*
 * Copies every entry out, at most *capacity*, but those whose key begins with *skip* (NULL: none).
 * Entries that come or go meanwhile may be missed or seen twice; -ENOSPC: more than *capacity*.
 */
int aegis_map_read(int fd, size_t key_size, size_t value_size, const uint32_t *skip,
		   char *keys, char *values, size_t capacity);
/*
 * Copies the next entries, at most *count*, but those whose key begins with *skip* (NULL: none).
 * *cursor*: 64 bytes to go on from; *more*: 0 at first, and after the last.
 */
int aegis_map_batch(int fd, size_t key_size, size_t value_size, const uint32_t *skip,
		    char *cursor, int *more, char *keys, char *values, size_t count);
/* Adds up the decisions in history of epochs from *since* on, *before* left out: 0, or -errno. */
int aegis_count_sums(int history_fd, int slots_fd, uint32_t since, uint32_t before,
		     uint64_t *decisions);
/* How many entries a hash has. */
int aegis_map_count(int fd, size_t key_size, size_t value_size);
int aegis_map_lookup(int fd, const char *key, char *value);
int aegis_map_next_key(int fd, const char *key, char *next);
/* How many entries a map has; *sum*: of a hash of each, whatever their order. */
int aegis_map_digest(int fd, size_t key_size, size_t value_size, uint64_t *sum);
/* The sum that a map with these entries, and no others, has. */
uint64_t aegis_digest(const char *keys, size_t key_size,
		      const char *values, size_t value_size, size_t count);
/* Adds up all CPUs' counters into 16 numbers, by enum aegis_counter. */
int aegis_sum_counters(int fd, uint64_t *sums);

/* Programs run from here: BPF_PROG_TEST_RUN of a raw_tp program; a task iterator. */
int aegis_run(int program_fd, uint64_t argument);
int aegis_iterate(int program_fd);
/* A new descriptor: reading it to its end runs the iterator. */
int aegis_iterator(int program_fd);
/* A new sock_diag socket of that network namespace, which need not be ours. */
int aegis_diag_socket(int netns_fd);

/* What to start; -1 is no descriptor. *keep* stays open, in becomes 0, out 1 and 2. */
struct aegis_spawn {
	const char *path;
	char **argv;
	char **envp;
	int in, out, keep, cgroup_fd;
	int as_user;			/* whether the rest counts */
	uint32_t uid, gid;
	const uint32_t *groups;
	size_t groups_count;
};
/* The new process. *no_cgroup*: 1 if it failed because it may not be put there. */
int aegis_spawn(const struct aegis_spawn *spawn, int *no_cgroup);

/*
 * Has a child be refused a connection to loopback, in the cgroup of *cgroup_fd* (its cgroup.procs;
 * -1: in ours). Returns what its connect() got: an errno, 0 if nothing refused it.
 */
int aegis_prove(int procs_fd, int cgroup_fd, int *child);

/* Capabilities of all threads, as bits, permitted and in effect. */
int aegis_set_rights(uint64_t rights);
int aegis_permitted_rights(uint64_t *permitted);
int aegis_hide_memory(int hidden);

/* Little memory rather than fast: frees go back to the system, now and from now on. */
void aegis_save_memory(void);

/* Waits until every program that began before the call has ended. */
int aegis_barrier(void);

/* The event ring. drain() copies at most *capacity* events, made whole again to *size* bytes. */
/* *data_size*: the map's. */
struct aegis_ring *aegis_ring_open(int map_fd, size_t size, size_t data_size);
int aegis_ring_fd(struct aegis_ring *ring);
int aegis_ring_drain(struct aegis_ring *ring, char *records, size_t capacity);
void aegis_ring_close(struct aegis_ring *ring);

#endif
