/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prober flood ADDRESS PORT COUNT THREADS [SPREAD]
 *
 * COUNT UDP connects in all, from THREADS threads, as fast as they can, to the
 * SPREAD ports from PORT on in turn. Prints one JSON object with what became of
 * them. A UDP connect puts nothing on the wire, so the kernel is the only limit.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "prober.h"

#define THREADS_MAX 64

struct worker {
	pthread_t thread;
	struct target target;
	long count;
	long spread;
	long refused;
	long allowed;
	long failed;	/* any errno but EPERM */
};

static void set_port(struct target *target, unsigned short port)
{
	if (target->addr.any.sa_family == AF_INET)
		target->addr.v4.sin_port = htons(port);
	else
		target->addr.v6.sin6_port = htons(port);
}

static void *flood_thread(void *arg)
{
	struct worker *worker = arg;
	struct target *target = &worker->target;
	int fd = socket(target->addr.any.sa_family, SOCK_DGRAM, 0);

	for (long i = 0; i < worker->count; i++) {
		set_port(target, target->port + i % worker->spread);
		if (!connect(fd, &target->addr.any, target->len))
			worker->allowed++;
		else if (errno == EPERM)
			worker->refused++;
		else
			worker->failed++;
	}
	close(fd);
	return NULL;
}

int flood(int argc, char **argv)
{
	static struct worker workers[THREADS_MAX];
	long count = argc > 5 ? atol(argv[4]) : 0, threads = argc > 5 ? atol(argv[5]) : 0;
	long spread = argc > 6 ? atol(argv[6]) : 1, refused = 0, allowed = 0, failed = 0;
	struct timespec start, end;
	struct target target;

	if (count < 1 || threads < 1 || threads > THREADS_MAX || count % threads || spread < 1 ||
	    !make_target(&target, argv[2], argv[3])) {
		fprintf(stderr, "usage: prober flood ADDRESS PORT COUNT THREADS [SPREAD]\n");
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long i = 0; i < threads; i++) {
		workers[i].target = target;
		workers[i].count = count / threads;
		workers[i].spread = spread;
		if (pthread_create(&workers[i].thread, NULL, flood_thread, &workers[i]))
			return 2;
	}
	for (long i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		refused += workers[i].refused;
		allowed += workers[i].allowed;
		failed += workers[i].failed;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("{\"allowed\": %ld, \"refused\": %ld, \"failed\": %ld, \"seconds\": %.3f}\n",
	       allowed, refused, failed,
	       end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9);
	return 0;
}
