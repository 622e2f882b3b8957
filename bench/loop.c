/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timed loops, in C so that no interpreter is timed. Commands on stdin, one
 * line of numbers for each:
 *
 *   udp ADDRESS PORT COUNT SPREAD   ns of one connect() of a UDP socket, to SPREAD ports in turn
 *   send ADDRESS PORT COUNT         ns of one sendto() of an unconnected one
 *   tcp ADDRESS PORT COUNT          ns of a connect() and close(): mean, median, 99th percentile
 *   fork PROGRAM COUNT              ns of a fork(), exec and wait
 *   vfork PROGRAM COUNT             the same without a copy of us, by posix_spawn()
 *   threads ADDRESS PORT COUNT N    N threads, COUNT UDP connects each, in turn to PORT and
 *                                   PORT + 1: ns in all, then how many were allowed to the one,
 *                                   refused to the other, and neither
 *
 * The argument is the CPU to stay on, before all others; -1: any CPU, and nobody's turn is taken.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define COUNT_MAX 100000

extern char **environ;

static long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static struct sockaddr_in target(const char *address, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		exit(2);
	return to;
}

/* A batch is short, so first in the queue is nobody's loss, and most batches are not interrupted. */
static void set_first(int first)
{
	struct sched_param fifo = { .sched_priority = 1 }, other = { 0 };

	if (sched_setscheduler(0, first ? SCHED_FIFO : SCHED_OTHER, first ? &fifo : &other))
		setpriority(PRIO_PROCESS, 0, -20);
}

static void udp(struct sockaddr_in to, long count, long spread)
{
	int port = ntohs(to.sin_port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	long begun;

	connect(fd, (void *)&to, sizeof(to));	/* bound and warm */
	set_first(1);
	begun = now_ns();
	for (long i = 0; i < count; i++) {
		to.sin_port = htons(port + i % spread);
		connect(fd, (void *)&to, sizeof(to));
	}
	begun = now_ns() - begun;
	set_first(0);
	close(fd);
	printf("%.2f\n", (double)begun / count);
}

static void udp_send(struct sockaddr_in to, long count)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	long begun, failed = 0;

	sendto(fd, "x", 1, 0, (void *)&to, sizeof(to));
	begun = now_ns();
	for (long i = 0; i < count; i++)
		failed += sendto(fd, "x", 1, 0, (void *)&to, sizeof(to)) < 0;
	printf("%.2f %ld\n", (double)(now_ns() - begun) / count, failed);
	close(fd);
}

static int by_size(const void *a, const void *b)
{
	long one = *(const long *)a, other = *(const long *)b;

	return (one > other) - (one < other);
}

static void tcp(struct sockaddr_in to, long count)
{
	static long took[COUNT_MAX];
	/* A reset: no port waits for a minute. */
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	long begun, all = 0;

	set_first(1);
	for (long i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		begun = now_ns();
		if (connect(fd, (void *)&to, sizeof(to))) {
			printf("%s\n", strerror(errno));
			close(fd);
			set_first(0);
			return;
		}
		close(fd);
		took[i] = now_ns() - begun;
		all += took[i];
	}
	set_first(0);
	qsort(took, count, sizeof(*took), by_size);
	printf("%.1f %ld %ld\n", (double)all / count, took[count / 2], took[count * 99 / 100]);
}

static pid_t start(char *program, int copied)
{
	char *argv[] = { program, NULL };
	pid_t child;

	if (!copied)
		return posix_spawn(&child, program, NULL, NULL, argv, environ) ? -1 : child;
	child = fork();
	if (child)
		return child;
	execve(program, argv, environ);
	_exit(127);
}

static void spawn(char *program, long count, int copied)
{
	long begun;

	set_first(1);			/* and the children */
	begun = now_ns();
	for (long i = 0; i < count; i++) {
		pid_t child = start(program, copied);
		int status;

		if (child < 0 || waitpid(child, &status, 0) != child || status)
			exit(2);
	}
	begun = now_ns() - begun;
	set_first(0);
	printf("%.1f\n", (double)begun / count);
}

struct worker {
	pthread_t thread;
	struct sockaddr_in to[2];
	long count, allowed, refused, wrong;
};

static void *run_worker(void *arg)
{
	struct worker *worker = arg;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	for (long i = 0; i < worker->count; i++) {
		int failed = connect(fd, (void *)&worker->to[i & 1], sizeof(worker->to[0]));

		if (!(i & 1) && !failed)
			worker->allowed++;
		else if (i & 1 && failed && errno == EPERM)
			worker->refused++;
		else
			worker->wrong++;
	}
	close(fd);
	return NULL;
}

static void threads(const char *address, int port, long count, int number)
{
	static struct worker workers[THREADS_MAX];
	long allowed = 0, refused = 0, wrong = 0, begun = now_ns();

	for (int i = 0; i < number && i < THREADS_MAX; i++) {
		workers[i] = (struct worker){
			.to = { target(address, port), target(address, port + 1) }, .count = count,
		};
		if (pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]))
			exit(2);
	}
	for (int i = 0; i < number && i < THREADS_MAX; i++) {
		pthread_join(workers[i].thread, NULL);
		allowed += workers[i].allowed;
		refused += workers[i].refused;
		wrong += workers[i].wrong;
	}
	printf("%ld %ld %ld %ld\n", now_ns() - begun, allowed, refused, wrong);
}

static void obey(char *line)
{
	char what[16], where[256];
	long number[3] = { 0 };
	int words = sscanf(line, "%15s %255s %ld %ld %ld", what, where, &number[0], &number[1],
			   &number[2]);

	if (words == 3 && (!strcmp(what, "fork") || !strcmp(what, "vfork")))
		spawn(where, number[0], what[0] == 'f');
	else if (words == 5 && !strcmp(what, "udp") && number[2] > 0)
		udp(target(where, number[0]), number[1], number[2]);
	else if (words == 4 && !strcmp(what, "send"))
		udp_send(target(where, number[0]), number[1]);
	else if (words == 4 && !strcmp(what, "tcp") && number[1] <= COUNT_MAX)
		tcp(target(where, number[0]), number[1]);
	else if (words == 5 && !strcmp(what, "threads"))
		threads(where, number[0], number[1], number[2]);
	else
		exit(2);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[512];
	cpu_set_t cpus;

	if (argc != 2)
		return 2;
	CPU_ZERO(&cpus);
	if (atoi(argv[1]) >= 0) {
		CPU_SET(atoi(argv[1]), &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus))
			return 2;
		setpriority(PRIO_PROCESS, 0, -20);
	}
	while (fgets(line, sizeof(line), stdin))
		obey(line);
	return 0;
}
