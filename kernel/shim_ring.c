/* SPDX-License-Identifier: Apache-2.0 */
/* The event ring: a batch of records in one call from Python. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/libbpf.h>
#include "shim.h"

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
