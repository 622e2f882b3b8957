/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring by its bare system calls: one request, one completion. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "prober.h"

struct ring {
	int fd;
	struct io_uring_params params;
	char *rings;		/* submission and completion share one mapping */
	struct io_uring_sqe *sqes;
};

static unsigned int *field(struct ring *ring, uint32_t offset)
{
	return (unsigned int *)(ring->rings + offset);
}

static int open_ring(struct ring *ring, unsigned int flags)
{
	struct io_uring_params *params = &ring->params;
	size_t size;

	memset(ring, 0, sizeof(*ring));
	params->flags = flags;
	params->sq_thread_idle = 1000;
	ring->fd = syscall(SYS_io_uring_setup, 4, params);
	if (ring->fd < 0)
		return errno == EPERM ? -ENOSYS : -errno;	/* sysctl io_uring_disabled */
	if (!(params->features & IORING_FEAT_SINGLE_MMAP))
		return -ENOSYS;
	size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	if (size < params->sq_off.array + params->sq_entries * sizeof(unsigned int))
		size = params->sq_off.array + params->sq_entries * sizeof(unsigned int);
	ring->rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			   ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, params->sq_entries * sizeof(*ring->sqes),
			  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
			  IORING_OFF_SQES);
	if (ring->rings == MAP_FAILED || ring->sqes == MAP_FAILED)
		return -ENOMEM;
	return 0;
}

/* Submit sqe 0 and return its result; the poller thread may have to be woken. */
static int run_one(struct ring *ring)
{
	unsigned int enter = IORING_ENTER_GETEVENTS;
	unsigned int *tail = field(ring, ring->params.sq_off.tail);
	unsigned int *head = field(ring, ring->params.cq_off.head);
	struct io_uring_cqe *cqes = (void *)(ring->rings + ring->params.cq_off.cqes);

	field(ring, ring->params.sq_off.array)[0] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(field(ring, ring->params.sq_off.flags), __ATOMIC_SEQ_CST) &
	    IORING_SQ_NEED_WAKEUP)
		enter |= IORING_ENTER_SQ_WAKEUP;
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, enter, NULL, 0) < 0)
		return -errno;
	return cqes[*head & *field(ring, ring->params.cq_off.ring_mask)].res;
}

static int request(const struct target *target, int type, const struct io_uring_sqe *sqe,
		   unsigned int flags)
{
	struct ring ring;
	int fd = socket(target->addr.any.sa_family, type | SOCK_CLOEXEC, 0), ret;

	if (fd < 0)
		return -errno;
	ret = open_ring(&ring, flags);
	if (!ret) {
		ring.sqes[0] = *sqe;
		ring.sqes[0].fd = fd;
		ret = run_one(&ring);
	}
	if (ring.fd >= 0)
		close(ring.fd);
	close(fd);
	return ret < 0 ? ret : 0;
}

static int connect_request(const struct target *target, unsigned int setup, uint8_t flags)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_CONNECT,
		.flags = flags,
		.addr = (uintptr_t)&target->addr,
		.off = target->len,
	};

	return request(target, SOCK_STREAM, &sqe, setup);
}

int uring_connect(const struct target *target)
{
	return connect_request(target, 0, 0);
}

/* In a kernel worker thread of this process, not in the calling one. */
int uring_async(const struct target *target)
{
	return connect_request(target, 0, IOSQE_ASYNC);
}

/* In the kernel's polling thread of this process. */
int uring_sqpoll(const struct target *target)
{
	return connect_request(target, IORING_SETUP_SQPOLL, 0);
}

int uring_sendmsg(const struct target *target)
{
	struct iovec iov = { .iov_base = "probe", .iov_len = 5 };
	struct msghdr msg = {
		.msg_name = (void *)&target->addr,
		.msg_namelen = target->len,
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_SENDMSG,
		.addr = (uintptr_t)&msg,
		.len = 1,
	};

	return request(target, SOCK_DGRAM, &sqe, 0);
}

/* One sendto() without a copy, since 6.0. Also the completion of a buffer is due; nobody waits. */
int uring_send_zc(const struct target *target)
{
	static char text[5] = "probe";
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_SEND_ZC,
		.addr = (uintptr_t)text,
		.len = sizeof(text),
		.addr2 = (uintptr_t)&target->addr,
		.addr_len = target->len,
	};

	return request(target, SOCK_DGRAM, &sqe, 0);
}
