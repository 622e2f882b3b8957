/* SPDX-License-Identifier: Apache-2.0 */
/* Past the transports: frames on a device, packets from one, and the way to the hypervisor. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/if_xdp.h>
#include <linux/vm_sockets.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "prober.h"

enum { FRAME_SIZE = 2048, FRAMES = 16 };

static uint16_t checksum(const void *data, size_t size)
{
	const uint16_t *word = data;
	uint32_t sum = 0;

	for (; size; size -= 2)
		sum += *word++;
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

bool build_datagram(struct datagram *datagram, const struct target *target)
{
	if (target->addr.any.sa_family != AF_INET)
		return false;
	memset(datagram, 0, sizeof(*datagram));
	datagram->ip.version = 4;
	datagram->ip.ihl = 5;
	datagram->ip.ttl = 64;
	datagram->ip.tot_len = htons(sizeof(*datagram));
	datagram->ip.protocol = IPPROTO_UDP;
	datagram->ip.saddr = target->addr.v4.sin_addr.s_addr;
	datagram->ip.daddr = target->addr.v4.sin_addr.s_addr;
	datagram->ip.check = checksum(&datagram->ip, sizeof(datagram->ip));
	datagram->udp.source = htons(40000);
	datagram->udp.dest = htons(target->port);
	datagram->udp.len = htons(sizeof(*datagram) - sizeof(datagram->ip));
	memcpy(datagram->text, "probe", sizeof(datagram->text));
	return true;
}

int packet(const struct target *target)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = if_nametoindex("lo"),
		.sll_halen = ETH_ALEN,
	};
	struct datagram datagram;
	int fd;

	if (!build_datagram(&datagram, target))
		return -EAFNOSUPPORT;
	fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	return finish(fd, result(sendto(fd, &datagram, sizeof(datagram), 0, (void *)&to,
					sizeof(to))));
}

/* Memory of ours for frames, and the rings the kernel insists on; not bound yet. */
static int set_up_xdp(int fd, char *frames)
{
	struct xdp_umem_reg memory = {
		.addr = (uintptr_t)frames,
		.len = FRAMES * FRAME_SIZE,
		.chunk_size = FRAME_SIZE,
	};
	int size = FRAMES;

	if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &memory, sizeof(memory)) ||
	    setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_XDP, XDP_TX_RING, &size, sizeof(size)))
		return -errno;
	return 0;
}

/* Put frame 0 on the ring, bind and wake the kernel. Linux 6.1 maps no ring once bound. */
static int transmit(int fd, uint32_t length)
{
	struct sockaddr_xdp at = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = XDP_COPY,
		.sxdp_ifindex = if_nametoindex("lo"),
	};
	struct xdp_mmap_offsets offsets;
	socklen_t size = sizeof(offsets);
	struct xdp_desc *descriptors;
	char *ring;

	if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size))
		return -errno;
	ring = mmap(NULL, offsets.tx.desc + FRAMES * sizeof(*descriptors), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_POPULATE, fd, XDP_PGOFF_TX_RING);
	if (ring == MAP_FAILED)
		return -errno;
	descriptors = (void *)(ring + offsets.tx.desc);
	descriptors[0] = (struct xdp_desc){ .len = length };
	__atomic_store_n((uint32_t *)(ring + offsets.tx.producer), 1, __ATOMIC_RELEASE);
	if (bind(fd, (void *)&at, sizeof(at)))
		return -errno;
	return result(sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0));
}

int xdp(const struct target *target)
{
	struct ether_header *header;
	struct datagram datagram;
	char *frames;
	int fd, ret;

	if (!build_datagram(&datagram, target))
		return -EAFNOSUPPORT;
	frames = mmap(NULL, FRAMES * FRAME_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (frames == MAP_FAILED)
		return -errno;
	header = (void *)frames;
	header->ether_type = htons(ETH_P_IP);
	memcpy(header + 1, &datagram, sizeof(datagram));
	fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	ret = set_up_xdp(fd, frames);
	return finish(fd, ret ? ret : transmit(fd, sizeof(*header) + sizeof(datagram)));
}

/* A packet that seems to come from a device of the program's own making. */
int tun(const struct target *target)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), control, ret;
	struct datagram datagram;

	if (fd < 0)
		return errno == ENOENT ? -ENOSYS : -errno;
	if (!build_datagram(&datagram, target))
		return finish(fd, -EAFNOSUPPORT);
	ret = result(ioctl(fd, TUNSETIFF, &request));
	control = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	request.ifr_flags = IFF_UP;
	if (!ret)
		ret = result(ioctl(control, SIOCSIFFLAGS, &request));
	if (!ret)
		ret = result(write(fd, &datagram, sizeof(datagram)));
	close(control);
	return finish(fd, ret);
}

/*
 * To this machine itself. Without the loopback transport the kernel would hand
 * it to the hypervisor: no test goes there.
 */
int vsock(const struct target *target)
{
	struct sockaddr_vm to = {
		.svm_family = AF_VSOCK,
		.svm_port = target->port,
		.svm_cid = VMADDR_CID_LOCAL,
	};
	struct stat status;
	int fd;

	if (stat("/sys/module/vsock_loopback", &status))
		return -EAFNOSUPPORT;
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	return finish(fd, result(connect(fd, (void *)&to, sizeof(to))));
}
