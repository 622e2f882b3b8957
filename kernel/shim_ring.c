/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event ring: a batch of records in one call from Python. Not libbpf's reader: that one
 * maps the data twice in a row, so that no record is ever in two pieces, and each page then
 * counts twice as ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/bpf.h>
#include "shim.h"

struct aegis_ring {
	int fd;
	size_t size, page, data_size;
	unsigned long *read;		/* how far we are; the rest is the kernel's */
	const unsigned long *written;
	const char *data;
};

struct aegis_ring *aegis_ring_open(int map_fd, size_t size, size_t data_size)
{
	struct aegis_ring *ring = calloc(1, sizeof(*ring));
	char *pages;

	if (!ring)
		return NULL;
	ring->size = size;
	ring->page = sysconf(_SC_PAGESIZE);
	ring->data_size = data_size;
	ring->fd = fcntl(map_fd, F_DUPFD_CLOEXEC, 0);
	ring->read = mmap(NULL, ring->page, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
	pages = mmap(NULL, ring->page + ring->data_size, PROT_READ, MAP_SHARED, map_fd,
		     ring->page);
	ring->written = (void *)pages;
	ring->data = pages + ring->page;
	if (ring->fd < 0 || ring->read == MAP_FAILED || pages == MAP_FAILED) {
		aegis_ring_close(ring);
		return NULL;
	}
	return ring;
}

int aegis_ring_fd(struct aegis_ring *ring)
{
	return ring->fd;
}

/* *length* bytes from *at* on, which may go on at the beginning. */
static void copy_out(const struct aegis_ring *ring, unsigned long at, char *to, size_t length)
{
	size_t offset = at & (ring->data_size - 1), first = ring->data_size - offset;

	if (first > length)
		first = length;
	memcpy(to, ring->data + offset, first);
	memcpy(to + first, ring->data, length - first);
}

/* A short event as the whole one that it stands for. */
static int store(const struct aegis_ring *ring, unsigned long at, char *to, size_t length)
{
	const size_t cmdline = AEGIS_EVENT_HEAD + AEGIS_PATH_SIZE;

	if (length == ring->size) {
		copy_out(ring, at, to, length);
		return 0;
	}
	if (length != AEGIS_SHORT_EVENT || ring->size < cmdline + AEGIS_CMDLINE_SIZE)
		return -EPROTO;
	memset(to + AEGIS_EVENT_HEAD, 0, ring->size - AEGIS_EVENT_HEAD);
	copy_out(ring, at, to, AEGIS_EVENT_HEAD + AEGIS_SHORT_PATH);
	copy_out(ring, at + AEGIS_EVENT_HEAD + AEGIS_SHORT_PATH, to + cmdline,
		 AEGIS_SHORT_CMDLINE);
	return 0;
}

int aegis_ring_drain(struct aegis_ring *ring, char *records, size_t capacity)
{
	unsigned long at = *ring->read, length;
	size_t count = 0;
	int err = 0;

	/* The header of a record never goes on at the beginning: all is in steps of 8. */
	while (!err && count < capacity && at < __atomic_load_n(ring->written, __ATOMIC_ACQUIRE)) {
		length = __atomic_load_n((const __u32 *)(ring->data + (at & (ring->data_size - 1))),
					 __ATOMIC_ACQUIRE);
		if (length & BPF_RINGBUF_BUSY_BIT)
			break;
		if (!(length & BPF_RINGBUF_DISCARD_BIT)) {
			err = store(ring, at + BPF_RINGBUF_HDR_SZ, records + count * ring->size,
				    length);
			count += !err;
		}
		length &= ~BPF_RINGBUF_DISCARD_BIT;
		at += (length + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
	}
	__atomic_store_n(ring->read, at, __ATOMIC_RELEASE);
	return err ? err : (int)count;
}

void aegis_ring_close(struct aegis_ring *ring)
{
	if (!ring)
		return;
	if (ring->read && ring->read != MAP_FAILED)
		munmap(ring->read, ring->page);
	if (ring->written && ring->written != MAP_FAILED)
		munmap((void *)ring->written, ring->page + ring->data_size);
	if (ring->fd >= 0)
		close(ring->fd);
	free(ring);
}
