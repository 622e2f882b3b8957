// SPDX-License-Identifier: Apache-2.0
/* Makes one socket: maker FAMILY TYPE PROTOCOL. The exit status is errno, 0 if it was made. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	if (argc != 4)
		return 255;
	return socket(atoi(argv[1]), atoi(argv[2]), atoi(argv[3])) < 0 ? errno : 0;
}
