/* SPDX-License-Identifier: Apache-2.0 */
/* What a later agent must know of programs that an earlier one loaded. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include "shim.h"
#include "shim_object.h"

const char *aegis_program_name(struct aegis_object *object, int number)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object->bpf)
		if (!number--)
			return bpf_program__name(program);
	return NULL;
}

const char *aegis_constants_name(struct aegis_object *object, int number)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, object->bpf)
		if (bpf_map__is_internal(map) && !number--)
			return bpf_map__name(map);
	return NULL;
}

int aegis_has_constants(struct aegis_object *object, const char *name, int fd)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object->bpf, name);
	struct bpf_map_info info = {};
	__u32 length = sizeof(info), zero = 0;
	const void *wanted;
	size_t size = 0;
	char *found;
	int err;

	wanted = map ? bpf_map__initial_value(map, &size) : NULL;
	if (!wanted)
		return -ENOENT;
	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	/* The one entry is as long as the section, or rounded up: not another that begins alike. */
	if (info.type != BPF_MAP_TYPE_ARRAY || info.max_entries != 1 || info.value_size < size ||
	    info.value_size - size >= sizeof(__u64))
		return 0;
	found = malloc(info.value_size);
	if (!found)
		return -ENOMEM;
	err = bpf_map_lookup_elem(fd, &zero, found) ? -errno : !memcmp(found, wanted, size);
	free(found);
	return err;
}

int aegis_is_map(struct aegis_object *object, const char *name, int fd)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object->bpf, name);
	struct bpf_map_info info = {};
	__u32 length = sizeof(info);

	if (!map)
		return -ENOENT;
	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	return info.type == bpf_map__type(map) && info.key_size == bpf_map__key_size(map) &&
	       info.value_size == bpf_map__value_size(map) &&
	       info.max_entries == bpf_map__max_entries(map);
}

int aegis_ask_program(int fd, struct aegis_program_info *about)
{
	struct bpf_prog_info info = {
		.nr_map_ids = sizeof(about->maps) / sizeof(about->maps[0]),
		.map_ids = (uintptr_t)about->maps,
	};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	if (info.nr_map_ids > sizeof(about->maps) / sizeof(about->maps[0]))
		return -E2BIG;
	about->id = info.id;
	about->map_count = info.nr_map_ids;
	memcpy(about->tag, info.tag, sizeof(about->tag));
	return 0;
}

int aegis_link_program(int link_fd)
{
	struct bpf_link_info info = {};
	__u32 length = sizeof(info);

	return bpf_obj_get_info_by_fd(link_fd, &info, &length) ? -errno : (int)info.prog_id;
}

int aegis_link_number(int link_fd)
{
	struct bpf_link_info info = {};
	__u32 length = sizeof(info);

	return bpf_obj_get_info_by_fd(link_fd, &info, &length) ? -errno : (int)info.id;
}

int aegis_map_number(int map_fd)
{
	struct bpf_map_info info = {};
	__u32 length = sizeof(info);

	return bpf_obj_get_info_by_fd(map_fd, &info, &length) ? -errno : (int)info.id;
}
