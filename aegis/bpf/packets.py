# SPDX-License-Identifier: Apache-2.0
"""Attaching what sees packets, which takes CAP_NET_ADMIN at that moment.

All else of a cgroup's takes no right once it is loaded: kernel/bpf/syscall.c,
bpf_prog_attach_check_attach_type().
"""

from aegis._bpf import lib
from aegis.bpf.maps import check


def attach(program_fd: int, cgroup_fd: int) -> int:
    """To what comes in; return a descriptor of the link, which the caller closes.

    :raises KernelError: when the kernel says no
    """
    return check(lib.aegis_attach_packets(program_fd, cgroup_fd), "attaching to packets")
