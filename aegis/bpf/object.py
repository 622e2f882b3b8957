# SPDX-License-Identifier: Apache-2.0
"""The main BPF object: load, maps, putting tables in force."""

from collections.abc import Mapping
from dataclasses import dataclass

from aegis._bpf import ffi, lib
from aegis.bpf import parts
from aegis.bpf.adopt import adopt
from aegis.bpf.generation import Packed, index_key, pack_tables
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE, Digest, Map, check, pack_rows
from aegis.bpf.pins import Pins
from aegis.bpf.programs import Programs
from aegis.bpf.texts import Texts
from aegis.bpf.trial import Trial, active_generation, confirm, next_generation, read_row, read_trial
from aegis.errors import KernelError
from aegis.policy.garbage import uncollected
from aegis.policy.tables import Tables

# Map -> structs of key and value; None is one __u32, "u64" one __u64.
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
    "listeners": ("u64", "aegis_proc"),
    "owners": ("u64", "aegis_owner"),
    "served": ("aegis_port_key", "u64"),
    "peers": ("aegis_peer_key", "aegis_peer"),
    "history": ("aegis_history_key", "aegis_history"),
    "history_fill": (None, None),
    "slots": (None, "aegis_slot"),
    "epoch": (None, "aegis_epoch"),
    "programs": ("aegis_program", None),
    "program_count": (None, None),
    "counters": (None, "aegis_counters"),
    "host": (None, "aegis_host"),
    "budget": (None, "aegis_budget"),
    "noisy": (None, "aegis_noisy"),
    "watch": (None, "aegis_watch"),
    "judgements": (None, "aegis_judge"),
    "spared": (None, "aegis_spared"),
    "self_tests": (None, "aegis_self_test"),
}
# Never looked up by key from here.
UNKEYED_MAPS = ("execs", "askers", "seeding", "labels", "inherited", "events")
GENERATION_MAPS = ("hosts", "nets", "rules")


@dataclass(frozen=True)
class Kept:
    """What one generation has in one table; *keys* without gaps."""

    keys: bytes
    digest: Digest


def _size(struct: str | None) -> int:
    scalars = {None: 4, "u64": 8}
    return scalars[struct] if struct in scalars else layout(str(struct)).size


def open_map(name: str, fd: int) -> Map:
    """The map of that name of ours, open as *fd*."""
    key, value = MAPS[name]
    return Map(name, fd, _size(key), _size(value))


class BpfObject(Programs):
    """The main object, loaded. *reuse*: descriptors of maps to share instead of new ones.

    *pins*: where programs may be that need not be loaded again; ``not_adopted``: why they were.

    :raises KernelError: with libbpf's and the verifier's own words.
    """

    def __init__(self, reuse: Mapping[str, int] | None = None, pins: Pins | None = None) -> None:
        super().__init__("aegis")
        self.can_signal = bool(lib.aegis_can_signal())
        self.not_adopted = ""
        try:
            self._load(reuse or {}, pins)
        except BaseException:
            self.close()
            raise

    def _load(self, reuse: Mapping[str, int], pins: Pins | None) -> None:
        for name, fd in reuse.items():
            self.reuse(name, fd)
        settings = layout("aegis_settings").pack(can_signal=self.can_signal)
        self.set_constants(".rodata.settings", settings)
        self._adopt_or_load(reuse, pins)
        self.maps = {name: open_map(name, self.map_fd(name)) for name in MAPS}
        self.generation = active_generation(self.maps)
        self._held: dict[str, Kept] | None = None  # of what is in force; None: not known
        self._superseded: dict[str, Kept] | None = None  # to be deleted, if any
        self._is_alone = False  # whether there is nothing else in those tables
        self._foreign: set[str] = set()  # tables that others were found to have written
        # Rows of the array tables by half, to be compared: they are never deleted.
        self._rows: dict[int, dict[str, tuple[bytes, bytes]]] = {}
        self._texts = Texts(self.maps)
        self._distrusts = False
        self._enter_nobody()

    def _adopt_or_load(self, reuse: Mapping[str, int], pins: Pins | None) -> None:
        try:
            if pins is None:
                raise KernelError("nothing is pinned")
            adopt(self, pins, dict(reuse))
        except KernelError as error:
            self.not_adopted = str(error)
            self.apart = parts.load(self)

    def _enter_nobody(self) -> None:
        """tgid 0 stands for processes that were not recorded, cookie 0 for their sockets."""
        flags = lib.AEGIS_ID_LOST | lib.AEGIS_ID_CMDLINE_LOST
        flags |= lib.AEGIS_ID_PATH_CUT | lib.AEGIS_ID_NAME_CUT
        if self.maps["procs"].get(KEY_OF_ONE) is None:
            self.maps["procs"].put(KEY_OF_ONE, layout("aegis_proc").pack(flags=flags))
            self.maps["owners"].put(bytes(8), layout("aegis_owner").pack())

    def apply(self, tables: Tables, expires_boot_ns: int = 0) -> int:
        """Put *tables* in force and return their generation; on error nothing changes.

        Fill the other half, verify, flip one cell, wait for every running
        program to end. The old half is left to ``retire``; with *expires_boot_ns*,
        it is in force again from then on.

        :raises KernelError: when a table is full, a limit exceeded or a policy on trial.
        """
        if self.trial is not None:
            raise KernelError("a policy is on trial")
        self.retire()
        fresh = self.next_generation
        before, self._held = self._held, None
        old = None if self._distrusts else before
        if self._distrusts:
            self._texts.mend()
        if old is None:
            self._sweep(keep=self.generation)
        try:
            with uncollected():
                packed = pack_tables(tables, fresh, self._texts.number, expires_boot_ns)
            held = self._fill(packed, verified=old is None)
            if old is not None and self._find_foreign(old, held):
                old = None
                self._texts.mend()
                self._sweep(keep=self.generation)
                self._fill(packed, verified=True)
            self.maps["configs"].put(index_key(fresh & 1), packed.config)
        except BaseException:
            self._sweep(keep=self.generation)
            self._held = before
            raise
        if self._distrusts and not expires_boot_ns:
            self._rows.clear()  # of the other half, which nobody asks any more
        self._distrusts = False
        self._rows[fresh & 1] = {
            name: (b"".join(key for key, _ in rows), b"".join(row for _, row in rows))
            for name, rows in packed.arrays.items()
        }
        self._flip(fresh)
        self._is_alone = old is not None or not expires_boot_ns
        if old is None and not expires_boot_ns:
            self._sweep(keep=fresh)
            old = {}
        self._superseded, self._held = old, held
        return fresh

    def _fill(self, packed: Packed, *, verified: bool) -> dict[str, Kept]:
        """*verified*: read back what is told apart by its generation, too. Else the digest of

        the whole table, which costs less, tells the same and what others put there.
        """
        for name, entries in packed.arrays.items():
            self.maps[name].fill(entries)
        held = {}
        for name, entries in packed.hashes.items():
            table, rows = self.maps[name], pack_rows(entries)
            table.write(rows)
            if verified:
                table.verify(rows)
            held[name] = Kept(rows.keys, table.digest_of(rows))
        return held

    def _find_foreign(self, *kept: Mapping[str, Kept]) -> bool:
        """Whether there is anything but *kept*; somebody may also have planned for what comes."""
        found = {
            name for name in GENERATION_MAPS if self.maps[name].digest() != _digest(name, *kept)
        }
        self._foreign |= found
        self._distrusts = bool(found)
        return self._distrusts

    def _flip(self, generation: int) -> None:
        self.maps["active"].put(KEY_OF_ONE, index_key(generation))
        self.generation = generation
        check(lib.aegis_barrier(), "waiting for running programs")

    @property
    def next_generation(self) -> int:
        """What ``apply`` will return."""
        return next_generation(self.maps)

    @property
    def trial(self) -> Trial | None:
        """See :func:`read_trial`."""
        return read_trial(self.maps)

    def may_need(self, field: str) -> bool:
        """Whether *field* of the configuration in force, or of what may be without anybody's

        doing, is set.
        """
        halves = (0, 1) if self.trial is not None else (self.generation,)
        return any(read_row(self.maps, half)[field] for half in halves)

    def confirm(self) -> None:
        """Have what is on trial stay.

        :raises KernelError: when nothing is, or not any more.
        """
        confirm(self.maps)
        if self._superseded is None:
            self._sweep(keep=self.generation)
            self._is_alone = True

    def take_back(self) -> None:
        """Put what was before the trial in force, as the kernel does by itself at its end."""
        trial = self.trial
        if trial is None:
            return
        self._flip(trial.fallback)
        self._sweep(keep=trial.fallback)
        # Texts stay until the next policy: what is in force again was numbered long ago.
        self._held, self._superseded = self._superseded, None

    def altered_arrays(self) -> set[str]:
        """The array tables with a row that is not what was put there."""
        return {
            name
            for tables in self._rows.values()
            for name, (keys, values) in tables.items()
            if not self.maps[name].holds(keys, values)
        }

    def expected(self, name: str) -> Digest | None:
        """What digest table *name* has if nobody else wrote to it; None: not known."""
        if name not in GENERATION_MAPS or self._held is None or not self._is_alone:
            return None
        return _digest(name, self._held, self._superseded or {})

    def take_foreign(self) -> set[str]:
        """The tables that ``apply`` found written by others, since the last call."""
        found, self._foreign = self._foreign, set()
        return found

    def distrust(self) -> None:
        """Somebody else wrote to the tables: the next ``apply`` leaves nothing of theirs."""
        self._distrusts = True

    def retire(self) -> None:
        """Delete what ``apply`` put out of force; at the latest, the next ``apply`` does it."""
        if self.trial is not None:
            return  # it may be in force again
        old, self._superseded = self._superseded, None
        if old is None:
            return
        for name, kept in old.items():
            self.maps[name].clear(kept.keys)
        self._texts.forget_unused()

    def _sweep(self, keep: int) -> None:
        """Delete every generation's entries but one's: what another agent or a crash left."""
        for name in GENERATION_MAPS:
            self.maps[name].sweep(4 if name == "nets" else 0, keep)  # after the prefix length

    def fill(self) -> dict[str, tuple[int, int]]:
        """Entries and room of each map that may become full."""
        held = self._held or {}
        return {
            name: (
                # Ours alone to change, and slow to count.
                _digest(name, held)[0] if name in GENERATION_MAPS else table.count(),
                table.room,
            )
            for name, table in self.maps.items()
            if MAPS[name][0] is not None or name == "procs"  # arrays are always full
        }


def _digest(name: str, *kept: Mapping[str, Kept]) -> Digest:
    """Of all of it together: a sum over entries, whatever their order."""
    digests = [each[name].digest for each in kept if name in each]
    return sum(count for count, _ in digests), sum(total for _, total in digests) % (1 << 64)


def read_counters(fd: int) -> dict[str, int]:
    """Sums over all CPUs, by the names of ``enum aegis_counter`` in lower case.

    *fd*: the ``counters`` map.
    """
    sums = ffi.new("uint64_t[16]")
    check(lib.aegis_sum_counters(fd, sums), "reading the counters")
    # The kernel makes one addition of these three where it can.
    for total in (lib.AEGIS_COUNTER_DECIDED, lib.AEGIS_COUNTER_ALLOWED, lib.AEGIS_COUNTER_QUIET):
        sums[total] += sums[lib.AEGIS_COUNTER_PLAIN]
    return {name: int(sums[index]) for index, name in enumerate(counter_names())}


def counter_names() -> list[str]:
    """Of ``enum aegis_counter``, in its order and in lower case."""
    prefix = "AEGIS_COUNTER_"
    names = ffi.typeof("enum aegis_counter").relements
    ordered = sorted(names.items(), key=lambda item: int(item[1]))
    hidden = {prefix + "MAX", prefix + "PLAIN"}
    return [name.removeprefix(prefix).lower() for name, _ in ordered if name not in hidden]
