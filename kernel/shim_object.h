/* SPDX-License-Identifier: Apache-2.0 */
/* What Python sees as opaque; for the shims only. */
#ifndef AEGIS_SHIM_OBJECT_H
#define AEGIS_SHIM_OBJECT_H

#include <bpf/libbpf.h>

struct aegis_object {
	struct bpf_object *bpf;
};

#endif
