# SPDX-License-Identifier: Apache-2.0
"""Everything of ours in the kernel, for one cgroup: adopt or create, attach, pin."""

import os
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aegis._bpf import lib
from aegis.bpf import adopt, guard, probe, proof
from aegis.bpf.cgroup import instance_name, open_cgroup
from aegis.bpf.early import Early
from aegis.bpf.evidence import Evidence
from aegis.bpf.generation import index_key
from aegis.bpf.inherit import Inherited, inherit, mark
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE, check
from aegis.bpf.object import MAPS, UNKEYED_MAPS, BpfObject, read_counters
from aegis.bpf.pins import Pins, mount_bpffs
from aegis.bpf.ring import Ring
from aegis.bpf.sums import KernelSums
from aegis.bpf.tiers import Tier, Tiers, lacking_lsm
from aegis.bpf.trial import Trial
from aegis.errors import KernelError
from aegis.policy.tables import Tables

TRACING = ("aegis_exec", "aegis_exec_again", "aegis_fork", "aegis_fork_again", "aegis_exit")
CGROUP = (
    *("aegis_connect4", "aegis_connect6", "aegis_sendmsg4", "aegis_sendmsg6", "aegis_socket"),
    *("aegis_bind4", "aegis_bind6", "aegis_recvmsg4", "aegis_recvmsg6"),
    "aegis_release",
)
# Attached only while what is in force says so, in this field of its configuration: the one is
# asked of every packet, the other ten times for a TCP connection (docs/performance.md).
PACKETS = "aegis_ingress"
WANTED_BY = {PACKETS: "refuses_inbound", "aegis_sockops": "watches_inbound"}


@dataclass(frozen=True)
class Measures:
    """What the kernel says of itself; *fill* and *ring*: how much of how much."""

    counters: dict[str, int]
    history: dict[str, int]
    fill: dict[str, tuple[int, int]]
    ring: tuple[int, int]  # bytes
    moved: int = 0  # decisions made while the others were added up


def _nobody_asks(_tables: Tables, _generation: int) -> None:
    """Called with what was put in force for good."""


def _nothing_loaded(_name: str) -> None:
    """Beforehand."""


class Kernel:
    """Order: ``start`` (identity is recorded from here on), ``apply`` (tables in

    force), ``attach`` (verdicts in force), ``close``. A first start that fails
    leaves nothing behind; an earlier agent's pins stay in force whatever fails.
    """

    def __init__(self, cgroup: Path) -> None:
        self.cgroup = cgroup
        self.instance = instance_name(cgroup)
        self.pins = Pins(self.instance)
        self._links: dict[str, int] = {}
        self._object: BpfObject | None = None
        self._adopted = False
        self._attached = False
        self._tiers: Tiers | None = None
        self.guard: guard.Guard | None = None
        self.tiers: tuple[Tier, ...] = ()
        self.inherited: list[Inherited] = []
        self.settled: Callable[[Tables, int], object] = _nobody_asks
        self._early: Early | None = None
        # Who does it, given a program and a cgroup, once we have no right to; see ``packets``.
        self.attach_packets: Callable[[int, int], int] | None = None

    @property
    def object(self) -> BpfObject:
        if self._object is None:
            raise KernelError("not loaded")
        return self._object

    @property
    def generation(self) -> int:
        """In force; 0: none yet."""
        return self.object.generation

    def load_early(self) -> None:
        """Have the kernel check our programs, which takes as long as to import an agent does.

        Nothing is pinned or attached: ``start`` takes it, or makes it if there is none.
        """
        self._early = Early(self.pins)

    def start(self) -> None:
        """Load, adopt an earlier agent's maps, record identities.

        :raises KernelError: naming what the machine lacks, or libbpf's own words.
        """
        probe.require()
        mount_bpffs()
        self._adopted = self.pins.is_complete()
        guard.require_aegis(self.pins)
        if self._adopted and not {*MAPS, *UNKEYED_MAPS} <= set(self.pins.names("maps")):
            self.pins.set_aside()  # somebody removed a pin: nothing can be added to the rest
            self._adopted = False
        if self._adopted:
            self.pins.check()
        else:
            self.pins.remove()  # what a crash in a first start left
        try:
            self._object = self._load()
            self._learn_host()
            if not self._adopted:
                self._pin_maps()
            for name in TRACING:
                self._trace(name)
            seed = self.object.program_fd("aegis_seed")
            check(lib.aegis_iterate(seed), "listing the processes")
        except BaseException:
            self.abandon()
            raise

    def _load(self) -> BpfObject:
        reuse: dict[str, int] = {}
        try:
            if self._early is not None and not self._adopted:
                early = self._early.take()
                if early is not None:
                    return early
            self._close_early()  # another agent was faster
            if self._adopted:
                for name in self.pins.names("maps"):
                    reuse[name] = self.pins.open(self.pins.map_path(name))
            return BpfObject(reuse, self.pins if self._adopted else None)
        finally:
            for fd in reuse.values():
                os.close(fd)  # libbpf keeps duplicates

    def _close_early(self) -> None:
        if self._early is not None:
            self._early.close()
            self._early = None

    def _pin_maps(self) -> None:
        self.pins.create()
        for name in (*MAPS, *UNKEYED_MAPS):
            self.pins.pin(self.object.map_fd(name), self.pins.map_path(name))

    def _trace(self, name: str) -> None:
        """These links have no update: both run until the old one's pin goes."""
        if name in self.pins.names("links"):
            fd = self.pins.open(self.pins.link_path(name))
            if adopt.link_program(fd) == adopt.ask(self.object.program_fd(name)).number:
                self._links[name] = fd
                return
            os.close(fd)
        self._keep(name, self.object.attach_tracing(name))

    def _learn_host(self) -> None:
        self.object.run("aegis_learn")
        table, row = self.object.maps["host"], layout("aegis_host")
        known = row.unpack(table.get(KEY_OF_ONE) or b"")
        if not known["root_dentry"]:
            raise KernelError("Aegis cannot run in a chroot: the policy's paths would not match")
        table.put(KEY_OF_ONE, row.pack(**known | {"cgroup_id": self.cgroup.stat().st_ino}))

    def _keep(self, name: str, fd: int) -> None:
        self._links[name] = fd
        self.pins.pin(fd, self.pins.link_path(name))
        if self.guard is not None:
            self.guard.add_link(fd, self.pins.link_path(name))

    def spare(self, tgids: Iterable[int]) -> None:
        """Have no kill in the kernel hit these processes, and no others than these."""
        table, procs = self.object.maps["spared"], self.object.maps["procs"]
        entries: dict[bytes, bytes] = {}
        for key in map(index_key, tgids):
            proc = procs.get(key)
            if proc is not None:  # else it has ended
                start = layout("aegis_proc").unpack(proc)["start_boot_ns"]
                entries[key] = layout("aegis_spared").pack(start_boot_ns=start)
        table.fill(list(entries.items()))
        table.clear(b"".join(key for key in list(table.keys()) if key not in entries))

    def apply(self, tables: Tables, expires_boot_ns: int = 0) -> int:
        """See :meth:`BpfObject.apply`. What comes in is looked at before a policy needs it."""
        if self._attached:
            wanted = [name for name, field in WANTED_BY.items() if getattr(tables, field)]
            self._attach_wanted(wanted)
        generation = self.object.apply(tables, expires_boot_ns)
        if not expires_boot_ns:
            self.settled(tables, generation)
        if self._attached:
            self._drop_unwanted()
        return generation

    def confirm(self) -> None:
        """See :meth:`BpfObject.confirm`."""
        self.object.confirm()
        self._drop_unwanted()

    def take_back(self) -> None:
        """See :meth:`BpfObject.take_back`."""
        self.object.take_back()
        if self._attached:
            self._drop_unwanted()

    @property
    def trial(self) -> Trial | None:
        """What is on trial, until it is confirmed or taken back."""
        return self.object.trial

    @property
    def next_generation(self) -> int:
        """What the next ``apply`` will return."""
        return self.object.next_generation

    def retire(self) -> None:
        """See :meth:`BpfObject.retire`."""
        self.object.retire()

    def attach(self) -> None:
        """Put verdicts in force: update pinned links, or attach and pin new ones.

        What is optional (``tiers``) comes last, and may be refused.

        :raises KernelError: when a hook is refused.
        """
        for name in CGROUP:
            self._attach_or_update(name)
        self._attach_wanted(filter(self._is_wanted, WANTED_BY))
        self._attached = True
        self._drop_unwanted()
        self._seed_sockets()
        loaded = self._early.optional if self._early is not None else _nothing_loaded
        self._tiers = Tiers(self.object, self.pins, self.cgroup, loaded)
        self.tiers = self._tiers.start()
        self._close_early()
        if not self.object.adopted:
            adopt.keep(self.object, self.pins)
        adopt.forget_others(self.pins)
        mark(self.pins)
        self.pins.complete()
        for other in self.pins.others():
            self._adopted = True  # something was in force before: it is not taken back any more
            self.inherited.append(inherit(other))

    def _seed_sockets(self) -> None:
        seed = self.object.program_fd("aegis_seed_sockets")
        check(lib.aegis_iterate(seed), "listing the sockets")

    def _is_wanted(self, name: str) -> bool:
        return self.object.may_need(WANTED_BY[name])

    def _attach_wanted(self, names: Iterable[str]) -> None:
        new = [name for name in names if name not in self._links]
        for name in new:
            self._attach_or_update(name)
        if new and self._attached:
            self._seed_sockets()  # listen() was not seen until now

    def start_guard(self, *, wanted: bool) -> None:
        """The last thing of a start: what is made from now on is not guarded by itself."""
        reason = lacking_lsm() if wanted else guard.NOT_ASKED_FOR
        if not reason:
            try:
                self.guard = self._make_guard()
            except (KernelError, OSError) as error:
                reason = str(error).partition("\n")[0]
        if reason:
            guard.lift(self.pins)
        self.tiers = (*self.tiers, Tier(guard.GUARD, active=not reason, reason=reason))

    def _make_guard(self) -> guard.Guard:
        made, tiers = guard.Guard(self.object, self.pins), self._tiers
        try:
            made.start(tuple(self._all_links().values()), tiers.abouts if tiers else ())
        except BaseException:
            made.close()
            raise
        return made

    def lift_guard(self) -> None:
        if self.guard is not None:
            self.guard.lift()
            self.guard = None
            others = (tier for tier in self.tiers if tier.name != guard.GUARD)
            self.tiers = (*others, Tier(guard.GUARD, active=False, reason="lifted"))

    def _attach_or_update(self, name: str) -> None:
        if name in self._links:
            return
        if name not in self.pins.names("links"):
            self._attach_new(name)
            return
        fd = self.pins.open(self.pins.link_path(name))
        if not check(lib.aegis_link_attached(fd), f"asking about {name}"):
            os.close(fd)  # somebody took it off its cgroup
            self._attach_new(name)
            return
        self._links[name] = fd
        check(lib.aegis_link_update(fd, self.object.program_fd(name)), f"updating {name}")

    def _drop_unwanted(self) -> None:
        """What is in force has no use for them."""
        for name in WANTED_BY.keys() & self.pins.names("links"):
            if not self._is_wanted(name):
                self.pins.remove_link(name)
                fd = self._links.pop(name, None)
                if fd is not None:
                    os.close(fd)

    def _attach_new(self, name: str) -> None:
        directory = open_cgroup(self.cgroup)
        try:
            self._keep(name, self._attach_to(name, directory))
        finally:
            os.close(directory)

    def _attach_to(self, name: str, directory: int) -> int:
        if name == PACKETS and self.attach_packets is not None:
            return self.attach_packets(self.object.program_fd(name), directory)
        return self.object.attach_cgroup(name, directory)

    def evidence(self) -> Evidence:
        """Of what is attached and in force; made once that is done."""
        return Evidence(self.object, self.pins, self._all_links())

    def _all_links(self) -> Mapping[str, int]:
        """By program, those of what is optional, too; it shows what comes and goes."""
        return ChainMap(self._links, self._tiers.links if self._tiers is not None else {})

    def prove(self) -> tuple[int, int]:
        """See :func:`aegis.bpf.proof.prove`."""
        return proof.prove(self.cgroup, self.object.map_fd("procs"))

    def open_ring(self) -> Ring:
        return Ring(self.object.map_fd("events"))

    def sums(self) -> KernelSums:
        return KernelSums(self.object.maps)

    def counters(self) -> dict[str, int]:
        """See :func:`read_counters`."""
        return read_counters(self.object.map_fd("counters"))

    def measure(self) -> Measures:
        """How full everything is."""
        ring = (self.object.run("aegis_waiting"), int(lib.AEGIS_RING_BYTES))
        counters, kept = self.counters(), self.sums().kept()
        moved = self.counters()["decided"] - counters["decided"]
        return Measures(counters, kept, self.object.fill(), ring, moved)

    def abandon(self) -> None:
        """The start failed: take back what it did, unless it adopted."""
        self.close()
        if not self._adopted:
            self.pins.remove()

    def close(self) -> None:
        """Let go; what is pinned stays in force."""
        self._close_early()  # it may be at work with the object
        for fd in self._links.values():
            os.close(fd)
        self._links.clear()
        if self.guard is not None:
            self.guard.close()
            self.guard = None
        if self._tiers is not None:
            self._tiers.close()
            self._tiers = None
        if self._object is not None:
            self._object.close()
            self._object = None
