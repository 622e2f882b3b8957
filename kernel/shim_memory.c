/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is not used goes back to the system. */
#include <malloc.h>
#include "shim.h"

enum { LARGE = 128 * 1024 };		/* bytes */

/*
 * glibc raises its thresholds as large blocks are freed, and gives each thread an arena: after
 * one burst an agent would stay at its largest for good.
 */
void aegis_save_memory(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, LARGE);
	mallopt(M_TRIM_THRESHOLD, LARGE);
	malloc_trim(0);
}
