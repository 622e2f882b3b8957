// SPDX-License-Identifier: GPL-2.0-only
/*
 * Optional: what needs a BPF trampoline. Shares every map with aegis.bpf.c; a
 * kernel that refuses it is without what is in here, and `aegis status` says so.
 */
#include "core.bpf.h"
#include "maps.bpf.h"
#include "selftest.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/*
 * The last stop on the way back from the connect and sendmsg hooks. Before v6.16 those may not
 * send signals themselves; they mark the process, and it dies before its call returns to it.
 * The arguments changed in v6.7 (uaddrlen), so none is looked at.
 */
SEC("fexit/__cgroup_bpf_run_filter_sock_addr")
int aegis_kill_marked(void *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct aegis_proc *proc = bpf_map_lookup_elem(&procs, &tgid);

	show_running(AEGIS_OPTIONAL_KILL_MARKED);
	/* The mark stays: each thread that comes by makes sure. */
	if (proc && READ_ONCE(proc->doomed))
		bpf_send_signal(SIGKILL);
	return 0;
}
