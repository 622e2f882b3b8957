/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long after a connect() something happens, ns, one line for each of COUNT times:
 *
 *   late log FILE ADDRESS PORT COUNT      until FILE has a line more: TCP, ports from PORT on
 *   late script FILE ADDRESS PORT COUNT PROGRAM
 *                                         until the time that a script wrote there; and in turn
 *                                         the same of PROGRAM started by us: its own start
 *   late kill ADDRESS PORT COUNT          until a child is dead; and how often it counted after
 *                                         its TCP connect()
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

struct file {
	int fd, watch;
};

static struct file follow(const char *path)
{
	struct file file = { .fd = open(path, O_RDONLY), .watch = inotify_init1(0) };

	if (file.fd < 0 || inotify_add_watch(file.watch, path, IN_MODIFY) < 0)
		exit(2);
	lseek(file.fd, 0, SEEK_END);
	return file;
}

/* TCP: of a UDP connect(), which sends nothing, no script is told. */
static void be_refused(struct sockaddr_in to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (!connect(fd, (void *)&to, sizeof(to)) || errno != EPERM)
		exit(3);
	close(fd);
}

static int until_logged(struct file file, const char *address, int port, int count)
{
	for (int i = 0; i < count; i++) {
		struct sockaddr_in to = target(address, port + i);
		char wanted[16];
		long begun = now_ns();

		/* An earlier one's line may come late: it is not this one's. */
		snprintf(wanted, sizeof(wanted), "%d", port + i);
		be_refused(to);
		if (!*next_line(file.watch, file.fd, wanted))
			return 1;
		printf("%ld\n", now_ns() - begun);
		usleep(PAUSE_US);
	}
	return 0;
}

/* The line is the time at which it was written; 0: there was none. */
static long written(struct file file)
{
	char *line = next_line(file.watch, file.fd, "");

	usleep(PAUSE_US);
	return atol(line);
}

static int until_started(struct file file, const char *address, int port, int count,
			 char *program)
{
	for (int i = 0; i < count; i++) {
		struct sockaddr_in to = target(address, port + i);
		long begun = now_ns(), late, own;

		be_refused(to);
		late = written(file) - begun;
		begun = now_ns();
		start(program);
		own = written(file) - begun;
		if (late < 0 || own < 0)
			return 1;
		printf("%ld %ld\n", late, own);
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
	if (argc == 6 && !strcmp(argv[1], "log"))
		return until_logged(follow(argv[2]), argv[3], atoi(argv[4]), atoi(argv[5]));
	if (argc == 7 && !strcmp(argv[1], "script"))
		return until_started(follow(argv[2]), argv[3], atoi(argv[4]), atoi(argv[5]),
				     argv[6]);
	if (argc == 5 && !strcmp(argv[1], "kill"))
		return until_dead(target(argv[2], atoi(argv[3])), atoi(argv[4]));
	return 2;
}
