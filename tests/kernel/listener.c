// SPDX-License-Identifier: Apache-2.0
/*
 * A server under test: listener tcp|udp ADDRESS PORT, or tcp|udp fd NUMBER for
 * a socket it inherits. PORT 0 for TCP: listen() without bind(). exec-udp
 * PROGRAM PORT binds and leaves the socket to that listener; fork-tcp PROGRAM
 * PORT listens and leaves it to a child that is that listener, as an init does.
 *
 * Says "ready PORT" or "refused ERRNO" on a line of its own, then "peer PORT"
 * for each connection or datagram. TCP gets "hi"; a datagram is sent back, and
 * what that came to is said as "answer ERRNO".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int refused(void)
{
	printf("refused %d\n", errno);
	return 1;
}

static int port_of(const struct sockaddr_in6 *address)
{
	return ntohs(address->sin6_port);
}

static void serve_tcp(int server)
{
	struct sockaddr_in6 peer;
	socklen_t size = sizeof(peer);
	int client = accept(server, (struct sockaddr *)&peer, &size);

	if (client < 0)
		return;
	printf("peer %d\n", port_of(&peer));
	if (write(client, "hi", 2) < 0)
		printf("write %d\n", errno);
	close(client);
}

static void serve_udp(int server)
{
	struct sockaddr_in6 peer;
	socklen_t size = sizeof(peer);
	char data[64];
	ssize_t got = recvfrom(server, data, sizeof(data), 0, (struct sockaddr *)&peer, &size);

	if (got < 0)
		return;
	printf("peer %d\n", port_of(&peer));
	got = sendto(server, data, got, 0, (struct sockaddr *)&peer, size);
	printf("answer %d\n", got < 0 ? errno : 0);
}

static int exec_udp(char *program, int port)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int server = socket(AF_INET6, SOCK_DGRAM, 0);
	char number[16];

	if (server < 0 || bind(server, (struct sockaddr *)&own, sizeof(own)))
		return refused();
	snprintf(number, sizeof(number), "%d", server);
	execl(program, program, "udp", "fd", number, (char *)NULL);
	return 1;
}

static int fork_tcp(char *program, int port)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int server = socket(AF_INET6, SOCK_STREAM, 0);
	char number[16];

	if (server < 0 || bind(server, (struct sockaddr *)&own, sizeof(own)) || listen(server, 16))
		return refused();
	snprintf(number, sizeof(number), "%d", server);
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(program, program, "tcp", "fd", number, (char *)NULL);
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6 };
	socklen_t size = sizeof(own);
	int server, udp, port;

	if (argc != 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	udp = !strcmp(argv[1], "udp");
	port = atoi(argv[3]);
	if (!strcmp(argv[1], "fork-tcp"))
		return fork_tcp(argv[2], port);
	if (!strcmp(argv[1], "exec-udp"))
		return exec_udp(argv[2], port);
	if (!strcmp(argv[2], "fd")) {
		server = port;
	} else {
		server = socket(AF_INET6, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
		own.sin6_port = htons(port);
		if (server < 0 || inet_pton(AF_INET6, argv[2], &own.sin6_addr) != 1)
			return 2;
		if ((port || udp) && bind(server, (struct sockaddr *)&own, sizeof(own)))
			return refused();
		if (!udp && listen(server, 16))
			return refused();
	}
	getsockname(server, (struct sockaddr *)&own, &size);
	printf("ready %d\n", port_of(&own));
	for (;;)
		udp ? serve_udp(server) : serve_tcp(server);
}
