# SPDX-License-Identifier: Apache-2.0
"""The life of the BPF object: open or adopt, load, seed, apply, attach, close."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from aegis._bpf import ffi, lib
from aegis.bpf import probe
from aegis.bpf.cgroup import instance_name, open_cgroup
from aegis.bpf.generation import index_key, pack_tables
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE, Map, check
from aegis.bpf.pins import Pins, mount_bpffs
from aegis.bpf.ring import Ring
from aegis.bpf.texts import Texts
from aegis.errors import KernelError
from aegis.policy.tables import Tables

# Map -> structs of key and value; None is one __u32.
MAPS: dict[str, tuple[str | None, str | None]] = {
    "active": (None, None),
    "configs": (None, "aegis_config"),
    "apps": (None, "aegis_app"),
    "hosts": ("aegis_host_key", "aegis_ports"),
    "nets": ("aegis_net_key", "aegis_ports"),
    "port_dirs": (None, "aegis_port_dir"),
    "port_pages": (None, "aegis_port_page"),
    "rules": ("aegis_rule_key", None),
    "exes": ("aegis_name", None),
    "paths": ("aegis_text", None),
    "cmdlines": ("aegis_text", None),
    "units": ("aegis_unit", None),
    "procs": (None, "aegis_proc"),
    "detents": ("aegis_detent_key", "aegis_detent"),
    "counters": (None, "aegis_counters"),
    "host": (None, "aegis_host"),
    "judgements": (None, "aegis_judge"),
}
GENERATION_MAPS = ("hosts", "nets", "rules")
UNNAMED_MAPS = ("seeding", "events")  # pinned too, but never looked up by key here
TRACING = ("aegis_exec", "aegis_fork", "aegis_exit")
CGROUP = ("aegis_connect4", "aegis_connect6", "aegis_sendmsg4", "aegis_sendmsg6")


def _size(struct: str | None) -> int:
    return 4 if struct is None else layout(struct).size


@dataclass(frozen=True)
class Adopted:
    """What an earlier agent left in force; generation 0: nothing."""

    generation: int = 0


class Kernel:
    """Everything of ours in the kernel, for one cgroup.

    Order: ``start`` (identity is recorded from here on), ``apply`` (tables in
    force), ``attach`` (verdicts in force). Any failure of a first start leaves
    nothing behind; when an earlier agent's pins exist they stay in force.
    """

    def __init__(self, cgroup: Path) -> None:
        self.cgroup = cgroup
        self.instance = instance_name(cgroup)
        self.pins = Pins(self.instance)
        self.maps: dict[str, Map] = {}
        self.generation = 0
        self._object = ffi.NULL
        self._links: dict[str, int] = {}
        self._texts: Texts

    def start(self) -> Adopted:
        """Load, adopt an earlier agent's maps, record identities.

        :raises KernelError: naming what the machine lacks, or libbpf's own words.
        """
        probe.require()
        mount_bpffs()
        adopting = self.pins.exists()
        self._load(adopting)
        try:
            self._learn_root()
            if not adopting:
                self._pin_maps()
            self._attach_tracing()
            check(lib.aegis_iterate(self._program("aegis_seed")), "listing the processes")
        except BaseException:
            self.close()
            if not adopting:
                self.pins.remove()
            raise
        return Adopted(self.generation)

    def _load(self, adopting: bool) -> None:
        self._object = lib.aegis_open()
        if self._object == ffi.NULL:
            raise KernelError(f"opening the BPF object failed\n{self._log()}")
        try:
            if adopting:
                self._reuse_maps()
            if lib.aegis_load(self._object) < 0:
                raise KernelError(f"the kernel refused the BPF programs\n{self._log()}")
            self._open_maps()
        except BaseException:
            self.close()
            raise

    def _reuse_maps(self) -> None:
        for name in self.pins.names("maps"):
            fd = self.pins.open(self.pins.map_path(name))
            try:
                result = lib.aegis_reuse_map(self._object, name.encode(), fd)
            finally:
                os.close(fd)  # libbpf keeps a duplicate
            check(result, f"adopting {self.pins.map_path(name)}")

    def _open_maps(self) -> None:
        for name, (key, value) in MAPS.items():
            fd = check(lib.aegis_map_fd(self._object, name.encode()), f"map {name}")
            self.maps[name] = Map(name, fd, _size(key), _size(value))
        self.generation = int.from_bytes(self.maps["active"].get(KEY_OF_ONE) or b"", sys.byteorder)
        self._texts = Texts(self.maps)
        # tgid 0 stands for processes that were not recorded (see current_proc()).
        nobody = lib.AEGIS_ID_LOST | lib.AEGIS_ID_PATH_CUT | lib.AEGIS_ID_NAME_CUT
        flags = nobody | lib.AEGIS_ID_CMDLINE_LOST
        if self.maps["procs"].get(KEY_OF_ONE) is None:
            self.maps["procs"].put(KEY_OF_ONE, layout("aegis_proc").pack(flags=flags))

    def _pin_maps(self) -> None:
        self.pins.create()
        for name in (*MAPS, *UNNAMED_MAPS):
            fd = check(lib.aegis_map_fd(self._object, name.encode()), f"map {name}")
            self.pins.pin(fd, self.pins.map_path(name))

    def _learn_root(self) -> None:
        check(lib.aegis_run(self._program("aegis_learn"), 0), "learning the root directory")
        known = layout("aegis_host").unpack(self.maps["host"].get(KEY_OF_ONE) or b"")
        if not known["root_dentry"]:
            raise KernelError("Aegis cannot run in a chroot: the policy's paths would not match")

    def _attach_tracing(self) -> None:
        for name in TRACING:
            # A raw tracepoint link has no update: both run until the old pin goes.
            fd = check(lib.aegis_attach_tracing(self._object, name.encode()), f"attaching {name}")
            self._keep(name, fd)

    def _keep(self, name: str, fd: int) -> None:
        self._links[name] = fd
        self.pins.pin(fd, self.pins.link_path(name))

    def attach(self) -> None:
        """Put verdicts in force: update pinned links, or attach and pin new ones.

        :raises KernelError: when a hook is refused; then none of ours that was
            not there before stays.
        """
        present = self.pins.names("links")
        try:
            for name in CGROUP:
                self._attach_cgroup(name, name in present)
        except BaseException:
            if not present:
                self.pins.remove()
            raise
        for other in self.pins.others():
            other.remove()

    def _attach_cgroup(self, name: str, pinned: bool) -> None:
        if pinned:
            fd = self.pins.open(self.pins.link_path(name))
            self._links[name] = fd
            check(lib.aegis_link_update(fd, self._program(name)), f"updating {name}")
            return
        directory = open_cgroup(self.cgroup)
        try:
            fd = lib.aegis_attach_cgroup(self._object, name.encode(), directory)
        finally:
            os.close(directory)
        self._keep(name, check(fd, f"attaching {name} to {self.cgroup}"))

    def apply(self, tables: Tables) -> int:
        """Put *tables* in force and return their generation; on error nothing changes.

        Fill the other half, verify, flip one cell, wait for every running
        program to end, then delete the old half.

        :raises KernelError: when a table is full or a limit exceeded.
        """
        fresh = self.generation + 1
        self._sweep(keep=self.generation)
        try:
            packed = pack_tables(tables, fresh, self._texts.number)
            for name, entries in {**packed.arrays, **packed.hashes}.items():
                self.maps[name].fill(entries)
            self.maps["configs"].put(index_key(fresh & 1), packed.config)
        except BaseException:
            self._sweep(keep=self.generation)
            raise
        self.maps["active"].put(KEY_OF_ONE, index_key(fresh))
        self.generation = fresh
        check(lib.aegis_barrier(), "waiting for running programs")
        self._sweep(keep=fresh)
        self._texts.forget_unused()
        return fresh

    def _sweep(self, keep: int) -> None:
        """Delete every generation's entries but one's: also what a crash left."""
        wanted = index_key(keep)
        for name in GENERATION_MAPS:
            at = 4 if name == "nets" else 0  # after the prefix length
            table = self.maps[name]
            keys = list(table.keys())
            table.clear([key for key in keys if key[at : at + 4] != wanted])

    def open_ring(self) -> Ring:
        fd = check(lib.aegis_map_fd(self._object, b"events"), "map events")
        return Ring(fd)

    def counters(self) -> dict[str, int]:
        """Sums over all CPUs, by the names of ``enum aegis_counter`` in lower case."""
        return read_counters(self.maps["counters"].fd)

    def _program(self, name: str) -> int:
        return check(lib.aegis_program_fd(self._object, name.encode()), f"program {name}")

    def _log(self) -> str:
        return str(ffi.string(lib.aegis_log()).decode(errors="replace")).strip()

    def close(self) -> None:
        """Let go; what is pinned stays in force."""
        for fd in self._links.values():
            os.close(fd)
        self._links.clear()
        self.maps.clear()
        if self._object != ffi.NULL:
            lib.aegis_close(self._object)
            self._object = ffi.NULL


def read_counters(fd: int) -> dict[str, int]:
    """See :meth:`Kernel.counters`; *fd* is the ``counters`` map."""
    sums = ffi.new("uint64_t[16]")
    check(lib.aegis_sum_counters(fd, sums), "reading the counters")
    prefix = "AEGIS_COUNTER_"
    names = ffi.typeof("enum aegis_counter").relements
    return {
        name.removeprefix(prefix).lower(): int(sums[value])
        for name, value in sorted(names.items(), key=lambda item: int(item[1]))
        if name != prefix + "MAX"
    }
