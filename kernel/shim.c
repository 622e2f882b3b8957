/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/membarrier.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "shim.h"
#include "shim_object.h"
#include "objects.h"		/* from build.py: embedded[] */

const char *aegis_abi(void)
{
	return AEGIS_ABI;		/* from build.py */
}

const char *aegis_build(void)
{
	return AEGIS_BUILD;		/* from build.py */
}

/* Of each thread: objects are loaded by several. */
static _Thread_local char log_text[16384];
static _Thread_local char log_taken[sizeof(log_text)];
static _Thread_local size_t log_length;

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

static const struct embedded *find_embedded(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(embedded) / sizeof(embedded[0]); i++)
		if (!strcmp(embedded[i].name, name))
			return &embedded[i];
	return NULL;
}

struct aegis_object *aegis_open(const char *name)
{
	LIBBPF_OPTS(bpf_object_open_opts, options,
		.object_name = name,
	);
	const struct embedded *found = find_embedded(name);
	struct aegis_object *object;

	if (!found)
		return NULL;
	object = calloc(1, sizeof(*object));
	if (!object)
		return NULL;
	libbpf_set_print(keep_log);
	object->bpf = bpf_object__open_mem(found->elf, found->size, &options);
	if (!object->bpf) {
		free(object);
		return NULL;
	}
	return object;
}

static struct bpf_map *find_map(struct aegis_object *object, const char *name)
{
	return bpf_object__find_map_by_name(object->bpf, name);
}

static struct bpf_program *find_program(struct aegis_object *object, const char *name)
{
	return bpf_object__find_program_by_name(object->bpf, name);
}

int aegis_reuse_map(struct aegis_object *object, const char *name, int fd)
{
	struct bpf_map *map = find_map(object, name);

	return map ? bpf_map__reuse_fd(map, fd) : -ENOENT;
}

int aegis_share_maps(struct aegis_object *object, struct aegis_object *owner)
{
	struct bpf_map *map, *theirs;
	int err;

	bpf_object__for_each_map(map, object->bpf) {
		if (bpf_map__is_internal(map))	/* constants: each object has its own */
			continue;
		theirs = find_map(owner, bpf_map__name(map));
		err = theirs ? bpf_map__reuse_fd(map, bpf_map__fd(theirs)) : 0;
		if (err)
			return err;
	}
	return 0;
}

int aegis_set_constants(struct aegis_object *object, const char *section,
			const char *value, size_t size)
{
	struct bpf_map *map = find_map(object, section);

	return map ? bpf_map__set_initial_value(map, value, size) : -ENOENT;
}

int aegis_set_cgroup(struct aegis_object *object, const char *name, int cgroup_fd)
{
	struct bpf_map *map = find_map(object, name);
	uint32_t zero = 0;

	return map ? bpf_map_update_elem(bpf_map__fd(map), &zero, &cgroup_fd, 0) : -ENOENT;
}

int aegis_skip_program(struct aegis_object *object, const char *name)
{
	struct bpf_program *program = find_program(object, name);

	return program ? bpf_program__set_autoload(program, false) : -ENOENT;
}

int aegis_load(struct aegis_object *object)
{
	int err = bpf_object__load(object->bpf);

	/* The kernel's BTF and the relocations are gone: give their 12 MiB back. */
	malloc_trim(0);
	return err;
}

void aegis_close(struct aegis_object *object)
{
	if (!object)
		return;
	bpf_object__close(object->bpf);
	free(object);
}

int aegis_can_signal(void)
{
	const struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_1, .imm = SIGKILL },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_send_signal },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, options,
		.expected_attach_type = BPF_CGROUP_INET4_CONNECT,
	);
	int fd = bpf_prog_load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, "aegis_probe", "GPL", program,
			       sizeof(program) / sizeof(program[0]), &options);

	if (fd < 0)
		return 0;
	close(fd);
	return 1;
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

int aegis_attach_cgroup(struct aegis_object *object, const char *name, int program_fd,
			int cgroup_fd)
{
	struct bpf_program *program = find_program(object, name);

	if (!program)
		return -ENOENT;
	/* A link implies allow-multi: other tools' programs stay attached. */
	return bpf_link_create(program_fd, cgroup_fd,
			       bpf_program__expected_attach_type(program), NULL);
}

int aegis_attach_packets(int program_fd, int cgroup_fd)
{
	return bpf_link_create(program_fd, cgroup_fd, BPF_CGROUP_INET_INGRESS, NULL);
}

int aegis_attach_tracing(int program_fd)
{
	return bpf_raw_tracepoint_open(NULL, program_fd);
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
