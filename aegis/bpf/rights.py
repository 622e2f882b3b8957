# SPDX-License-Identifier: Apache-2.0
"""Capabilities of this process, given up by all its threads for good."""

from aegis._bpf import ffi, lib
from aegis.bpf.maps import check

# linux/capability.h
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


def bits(names: frozenset[str]) -> int:
    return sum(1 << CAPABILITIES[name] for name in names)


def keep_rights(names: frozenset[str]) -> None:
    """Every thread keeps these, and those they start; none that is not held is gained.

    :raises KernelError: when some thread would not.
    """
    held = ffi.new("uint64_t *")
    check(lib.aegis_permitted_rights(held), "asking for the capabilities")
    check(lib.aegis_set_rights(bits(names) & held[0]), "giving up capabilities")


def hide_memory(*, hidden: bool) -> None:
    """From other processes of the same user; so hidden, it cannot execute by ``/proc/self/fd``."""
    check(lib.aegis_hide_memory(hidden), "hiding memory")
