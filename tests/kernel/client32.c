/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client32 tcp ADDRESS PORT   one TCP connect to 127.0.0.1, as a 32-bit program does
 * it; exits with the errno. Arguments as prober's.
 * Bare, because a 32-bit C library is one more package.
 */
#define AF_INET 2
#define SOCK_STREAM 1

enum call { CALL_EXIT = 1, CALL_SOCKET = 359, CALL_CONNECT = 362 };

struct address {
	unsigned short family;
	unsigned char port[2];
	unsigned char ip[4];
	unsigned char zero[8];
};

static long call(long number, long first, long second, long third)
{
	long ret;

	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(number), "b"(first), "c"(second), "d"(third)
			 : "memory");
	return ret;
}

/* The stack as execve left it: argc, then argv. */
__attribute__((used)) void run(const int *stack)
{
	const char *text = (const char *)stack[*stack];
	struct address to = { .family = AF_INET, .ip = { 127, 0, 0, 1 } };
	unsigned int port = 0;
	long ret;

	for (; *text; text++)
		port = port * 10 + (*text - '0');
	to.port[0] = port >> 8;
	to.port[1] = port;
	ret = call(CALL_SOCKET, AF_INET, SOCK_STREAM, 0);
	if (ret >= 0)
		ret = call(CALL_CONNECT, ret, (long)&to, sizeof(to));
	call(CALL_EXIT, ret < 0 ? -ret : 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %esp, %eax\n\tand $-16, %esp\n\tsub $12, %esp\n"
	"\tpush %eax\n\tcall run\n");
