/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long after a connect() something happens, ns, one line for each of COUNT times:
 *
 *   late log FILE ADDRESS PORT COUNT      until FILE has a line more: UDP, ports from PORT on
 *   late script FILE ADDRESS PORT COUNT   until the time that a script wrote there
 *   late start FILE PROGRAM COUNT         the same of PROGRAM started by us: the script's own start
 *   late kill ADDRESS PORT COUNT          until a child is dead; and how often it counted after
 *                                         its TCP connect()
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 120000	/* before it is called hung */
#define PAUSE_US 5000

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

/* Lines added to *fd* since the last call, with *wanted* in them; "" after a while. */
static char *next_line(int watch, int fd, const char *wanted)
{
	static char text[1 << 16];
	struct pollfd changed = { .fd = watch, .events = POLLIN };
	char events[4096];
	ssize_t size;

	for (;;) {
		size = read(fd, text, sizeof(text) - 1);
		text[size > 0 ? size : 0] = 0;
		if (size > 0 && text[size - 1] == '\n' && strstr(text, wanted))
			break;
		if (poll(&changed, 1, PATIENCE_MS) < 1)
			return "";
		if (read(watch, events, sizeof(events)) < 0)
			return "";
	}
	return text;
}

static void start(char *program)
{
	char *argv[] = { program, NULL };
	pid_t child;

	if (posix_spawn(&child, program, NULL, NULL, argv, environ))
		exit(2);
	waitpid(child, NULL, 0);
}

static int until_written(char **argv, int number)
{
	int watch = inotify_init1(0), fd = open(argv[2], O_RDONLY), count, port = 0;
	int by_clock = !strcmp(argv[1], "log"), connects = number == 6;

	count = atoi(argv[number - 1]);
	if (connects)
		port = atoi(argv[4]);
	if (fd < 0 || inotify_add_watch(watch, argv[2], IN_MODIFY) < 0)
		return 2;
	lseek(fd, 0, SEEK_END);
	for (int i = 0; i < count; i++) {
		int sock = socket(AF_INET, SOCK_DGRAM, 0);
		struct sockaddr_in to = target(connects ? argv[3] : "0.0.0.0", port + i);
		long begun = now_ns();
		char *line, wanted[16] = "";

		/* An earlier one's line may come late: it is not this one's. */
		if (by_clock)
			snprintf(wanted, sizeof(wanted), "%d", port + i);
		if (connects)
			sendto(sock, "x", 1, 0, (void *)&to, sizeof(to));
		else
			start(argv[3]);
		line = next_line(watch, fd, wanted);
		if (!*line)
			return 1;
		printf("%ld\n", (by_clock ? now_ns() : atol(line)) - begun);
		close(sock);
		usleep(PAUSE_US);
	}
	return 0;
}

struct shared {
	volatile long begun, counted;
};

static int until_dead(struct sockaddr_in to, int count)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < count; i++) {
		int status;
		pid_t child;

		shared->counted = 0;
		child = fork();
		if (!child) {
			int fd = socket(AF_INET, SOCK_STREAM, 0);

			alarm(PATIENCE_MS / 1000);
			shared->begun = now_ns();
			connect(fd, (void *)&to, sizeof(to));
			for (;;)
				shared->counted++;
		}
		waitpid(child, &status, 0);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			return 1;
		printf("%ld %ld\n", now_ns() - shared->begun, shared->counted);
		usleep(PAUSE_US);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && (!strcmp(argv[1], "log") || !strcmp(argv[1], "script")))
		return until_written(argv, argc);
	if (argc == 5 && !strcmp(argv[1], "start"))
		return until_written(argv, argc);
	if (argc == 5 && !strcmp(argv[1], "kill"))
		return until_dead(target(argv[2], atoi(argv[3])), atoi(argv[4]));
	return 2;
}
