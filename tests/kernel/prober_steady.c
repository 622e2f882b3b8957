/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prober steady ADDRESS ALLOWED DENIED
 *
 * Until the end of its input: thousands of attempts a second at port DENIED, each of
 * which must get EPERM, and some at port ALLOWED, none of which may. Now and then a
 * fresh process tries both. Each line of input, and its end, is answered by what became
 * of the attempts since the last one; "gap" is the longest time between two rounds in ms.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "prober.h"

#define ROUND_MS 2
#define DENIED_A_ROUND 8
#define FRESH_EVERY 128		/* rounds */

struct tally {
	long refused, passed;	/* of the denied */
	long out, stopped;	/* of the allowed */
};

static int udp_connect_only(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0);

	return fd < 0 ? -errno : finish(fd, result(connect(fd, &target->addr.any, target->len)));
}

static int udp_send_only(const struct target *target)
{
	int fd = open_socket(target, SOCK_DGRAM, 0);

	return fd < 0 ? -errno : finish(fd, send_to(fd, target));
}

/* Anything but EPERM and a socket we could not make: it went out. */
static void count_denied(struct tally *tally, int ret)
{
	if (ret == -EPERM)
		tally->refused++;
	else
		tally->passed++;
}

static void count_allowed(struct tally *tally, int ret)
{
	if (!ret || ret == -ECONNREFUSED)
		tally->out++;
	else
		tally->stopped++;
}

/* A program that nobody has seen before. */
static int fresh(const struct target *target)
{
	char port[8];
	pid_t pid;
	int status;

	snprintf(port, sizeof(port), "%u", target->port);
	pid = fork();
	if (!pid) {
		execl(self_path, self_path, "-e", "tcp", target->address, port, NULL);
		_exit(255);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

static void make_round(struct tally *tally, const struct target *allowed,
		       const struct target *denied, long number)
{
	static form_fn *const ways[] = { udp_connect_only, form_tcp, udp_send_only };

	for (int i = 0; i < DENIED_A_ROUND; i++)
		count_denied(tally, ways[i % 3](denied));
	count_allowed(tally, ways[number % 2](allowed));
	if (number % FRESH_EVERY)
		return;
	count_denied(tally, fresh(denied));
	count_allowed(tally, fresh(allowed));
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int steady(int argc, char **argv)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	struct target allowed, denied;
	struct tally tally = { 0 };
	double begun = now_ms(), last = begun, gap = 0;
	ssize_t length;
	char line[16];

	if (argc != 5 || !make_target(&allowed, argv[2], argv[3]) ||
	    !make_target(&denied, argv[2], argv[4])) {
		fprintf(stderr, "usage: prober steady ADDRESS ALLOWED DENIED\n");
		return 2;
	}
	for (long number = 1;; number++) {
		make_round(&tally, &allowed, &denied, number);
		if (now_ms() - last > gap)
			gap = now_ms() - last;
		last = now_ms();
		if (!poll(&input, 1, ROUND_MS))
			continue;
		length = read(0, line, sizeof(line));
		printf("{\"refused\": %ld, \"passed\": %ld, \"out\": %ld, \"stopped\": %ld, "
		       "\"seconds\": %.3f, \"gap\": %.1f}\n",
		       tally.refused, tally.passed, tally.out, tally.stopped,
		       (now_ms() - begun) / 1e3, gap);
		fflush(stdout);
		if (length <= 0)
			return 0;
		tally = (struct tally){ 0 };
		begun = now_ms();
		gap = 0;
	}
}
