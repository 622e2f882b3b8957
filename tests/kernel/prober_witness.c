/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prober witness FILE connect|sendto|fastopen ADDRESS PORT
 * The very next thing after the system call is a byte stored in FILE's shared
 * memory: it stays 0 only if no instruction ran after the call.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "prober.h"

static volatile char *map_byte(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	void *page;

	if (fd < 0 || ftruncate(fd, 1))
		return NULL;
	page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return page == MAP_FAILED ? NULL : page;
}

int witness(int argc, char **argv)
{
	volatile char *ran = argc == 6 ? map_byte(argv[2]) : NULL;
	bool sends = argc == 6 && !strcmp(argv[3], "sendto");
	struct target target;
	int fd;

	if (!ran || !make_target(&target, argv[4], argv[5]))
		return 2;
	*ran = 0;			/* the page is there from now on */
	fd = socket(target.addr.any.sa_family, sends ? SOCK_DGRAM : SOCK_STREAM, 0);
	if (!strcmp(argv[3], "connect"))
		connect(fd, &target.addr.any, target.len);
	else
		sendto(fd, "probe", 5, sends ? 0 : MSG_FASTOPEN, &target.addr.any, target.len);
	*ran = 1;
	return 0;
}
