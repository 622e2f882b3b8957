# SPDX-License-Identifier: Apache-2.0
"""One BPF object in this process: opened, loaded, its programs and maps by name."""

import os
from collections.abc import Callable
from typing import Any

from aegis._bpf import ffi, lib
from aegis.bpf.maps import check
from aegis.errors import KernelError


class Programs:
    """``kernel/NAME.bpf.c``, opened and not loaded yet.

    :raises KernelError: with libbpf's own words.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.adopted: dict[str, int] = {}  # programs that were loaded before, open
        self.apart: dict[str, int] = {}  # programs that were loaded beside this one, open
        self.handle: Any = lib.aegis_open(name.encode())
        if self.handle == ffi.NULL:
            raise KernelError(f"opening the BPF object {name} failed\n{_log()}")

    def program_names(self) -> list[str]:
        return _all_names(lib.aegis_program_name, self.handle)

    def constants(self) -> list[str]:
        """The sections of constants; after ``load`` they are maps of these names."""
        return _all_names(lib.aegis_constants_name, self.handle)

    def reuse(self, name: str, fd: int) -> None:
        """Before ``load``: have map *name* be the one of *fd*."""
        if not check(lib.aegis_is_map(self.handle, name.encode(), fd), f"asking about map {name}"):
            raise KernelError(f"the pinned map {name} is another map")
        check(lib.aegis_reuse_map(self.handle, name.encode(), fd), f"adopting map {name}")

    def share(self, owner: "Programs") -> None:
        """Before ``load``: have the maps be the loaded *owner*'s, where it has such."""
        check(lib.aegis_share_maps(self.handle, owner.handle), f"sharing maps with {self.name}")

    def set_constants(self, section: str, value: bytes) -> None:
        """Before ``load``: what the constants in *section* are."""
        result = lib.aegis_set_constants(self.handle, section.encode(), value, len(value))
        check(result, f"setting the constants in {section}")

    def load(self) -> None:
        """Hand it to the kernel.

        :raises KernelError: with libbpf's and the verifier's own words.
        """
        result = lib.aegis_load(self.handle)
        if result < 0:
            reason = os.strerror(-result)
            raise KernelError(f"the kernel refused the BPF programs: {reason}\n{_log()}")

    def set_cgroup(self, name: str, cgroup_fd: int) -> None:
        """After ``load``: the one entry of the cgroup array *name*."""
        result = lib.aegis_set_cgroup(self.handle, name.encode(), cgroup_fd)
        check(result, f"entering the cgroup in {name}")

    def map_fd(self, name: str) -> int:
        return check(lib.aegis_map_fd(self.handle, name.encode()), f"map {name}")

    def program_fd(self, name: str) -> int:
        for others in (self.adopted, self.apart):
            if name in others:
                return others[name]
        return check(lib.aegis_program_fd(self.handle, name.encode()), f"program {name}")

    def attach_tracing(self, name: str) -> int:
        """Return a descriptor of the new link; the caller closes it."""
        return check(lib.aegis_attach_tracing(self.program_fd(name)), f"attaching {name}")

    def attach_cgroup(self, name: str, cgroup_fd: int) -> int:
        """Return a descriptor of the new link; the caller closes it."""
        fd = self.program_fd(name)
        result = lib.aegis_attach_cgroup(self.handle, name.encode(), fd, cgroup_fd)
        return check(result, f"attaching {name}")

    def run(self, name: str, argument: int = 0) -> int:
        """Run a raw_tp program here; return what it returned."""
        return check(lib.aegis_run(self.program_fd(name), argument), f"running {name}")

    def close(self) -> None:
        """Let go of everything that is not pinned or attached elsewhere."""
        for others in (self.adopted, self.apart):
            for fd in others.values():
                os.close(fd)
            others.clear()
        if self.handle != ffi.NULL:
            lib.aegis_close(self.handle)
            self.handle = ffi.NULL


def _all_names(name_of: Callable[[Any, int], Any], handle: Any) -> list[str]:
    found: list[str] = []
    while (name := name_of(handle, len(found))) != ffi.NULL:
        found.append(str(ffi.string(name).decode()))
    return found


def _log() -> str:
    return str(ffi.string(lib.aegis_log()).decode(errors="replace")).strip()
