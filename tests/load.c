/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load COUNT RATE SPREAD: COUNT UDP connects, RATE a second (0: as fast as they go), to SPREAD
 * different ends in turn, 1,024 ports of an address, from 198.18.0.0 on. One JSON object.
 * A UDP connect puts nothing on the wire; all of them are to be refused.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 1024, BURST = 64 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void wait_until(double when)
{
	double left = when - now();
	struct timespec t = { .tv_nsec = left * 1e9 };

	if (left > 0 && left < 1)
		nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
	long count = argc > 3 ? atol(argv[1]) : 0, rate = argc > 3 ? atol(argv[2]) : 0;
	long spread = argc > 3 ? atol(argv[3]) : 1, refused = 0;
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	double start = now();

	for (long i = 0; i < count; i++) {
		if (rate && i % BURST == 0)
			wait_until(start + (double)i / rate);
		to.sin_addr.s_addr = htonl(0xc6120000 + i % spread / PORTS);
		to.sin_port = htons(1024 + i % spread % PORTS);
		refused += connect(fd, (struct sockaddr *)&to, sizeof(to)) && errno == EPERM;
	}
	printf("{\"refused\": %ld, \"seconds\": %.3f}\n", refused, now() - start);
	return refused == count ? 0 : 1;
}
