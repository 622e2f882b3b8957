/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walker PATH COUNT BATCHES: ns of one stat() and of one open() and close() of PATH, each the
 * median of BATCHES of COUNT, in turn.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BATCHES_MAX 1000

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	double one = *(const double *)a, other = *(const double *)b;

	return (one > other) - (one < other);
}

int main(int argc, char **argv)
{
	static double took[2][BATCHES_MAX];
	long count, batches;
	struct stat found;

	if (argc != 4)
		return 2;
	count = atol(argv[2]);
	batches = atol(argv[3]);
	if (count < 1 || batches < 1 || batches > BATCHES_MAX)
		return 2;
	for (long i = 0; i < batches; i++) {
		double begun = now_ns();

		for (long j = 0; j < count; j++)
			if (stat(argv[1], &found))
				return 1;
		took[0][i] = (now_ns() - begun) / count;
		begun = now_ns();
		for (long j = 0; j < count; j++) {
			int fd = open(argv[1], O_RDONLY | O_CLOEXEC);

			if (fd < 0 || close(fd))
				return 1;
		}
		took[1][i] = (now_ns() - begun) / count;
	}
	for (int i = 0; i < 2; i++) {
		qsort(took[i], batches, sizeof(**took), by_size);
		printf("%.1f ", took[i][batches / 2]);
	}
	printf("\n");
	return 0;
}
