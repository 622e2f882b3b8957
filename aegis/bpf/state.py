# SPDX-License-Identifier: Apache-2.0
"""What is in the kernel, read from the pins: true with or without an agent."""

import errno
import os
from dataclasses import dataclass
from typing import Any

from aegis._bpf import lib
from aegis.bpf.generation import MODES, index_key
from aegis.bpf.kernel import CGROUP, TRACING, WANTED_BY
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE, Map, check
from aegis.bpf.object import open_map, read_counters
from aegis.bpf.pins import Pins
from aegis.bpf.sums import SUM_MAPS, KernelSums
from aegis.bpf.tiers import active_tiers
from aegis.bpf.trial import MAPS as TRIAL_MAPS
from aegis.bpf.trial import active_generation, read_row, read_trial


@dataclass(frozen=True)
class State:
    """One instance. *attached*: its programs that run; *missing*: those that should and do not."""

    instance: str
    loaded: bool
    generation: int = 0
    mode: str = ""
    counters: dict[str, int] | None = None
    moved: int = 0  # decisions made while those of history were added up
    history: dict[str, int] | None = None  # decisions: taken by agents, pending in the kernel
    attached: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()  # optional ones in force
    trial_s: float | None = None  # until what is in force is taken back; None: it stays
    foreign: tuple[str, ...] = ()  # other agents' ABIs that are still pinned


def read_state(instance: str) -> State:
    """Return what *instance* has in force.

    :raises KernelError: when a pin cannot be opened.
    """
    pins = Pins(instance)
    foreign = tuple(other.folder.name for other in pins.others())
    if not pins.exists():
        return State(instance, loaded=False, foreign=foreign)
    attached = tuple(name for name in pins.names("links") if _is_attached(pins, name))
    generation, config, trial_s = _read_policy(pins)
    wanted = (name for name, field in WANTED_BY.items() if config[field])
    host = layout("aegis_host")
    counters = pins.open(pins.map_path("counters"))
    try:
        sums = read_counters(counters)
        history = _read_history(pins)
        moved = read_counters(counters)["decided"] - sums["decided"]
    finally:
        os.close(counters)
    return State(
        instance,
        loaded=True,
        generation=generation,
        mode=str({number: mode for mode, number in MODES.items()}[config["mode"]]),
        counters=sums,
        moved=moved,
        history=history,
        attached=attached,
        missing=tuple(name for name in (*TRACING, *CGROUP, *wanted) if name not in attached),
        tiers=active_tiers(attached, host.unpack(_value(pins, "host", 0, host.size))),
        trial_s=trial_s,
        foreign=foreign,
    )


def _read_policy(pins: Pins) -> tuple[int, dict[str, Any], float | None]:
    """Generation and configuration of what decides now; for how many seconds, if it is on trial."""
    maps: dict[str, Map] = {}
    try:
        for name in TRIAL_MAPS:
            maps[name] = open_map(name, pins.open(pins.map_path(name)))
        trial = read_trial(maps)
        generation = trial.in_force if trial is not None else active_generation(maps)
        config = read_row(maps, generation)
    finally:
        for table in maps.values():
            os.close(table.fd)
    left = trial.left_s if trial is not None and not trial.is_over else None
    return generation, config, left


def _is_attached(pins: Pins, name: str) -> bool:
    # Pinned is not enough: a link can be taken off its cgroup, or the cgroup be gone.
    path = pins.link_path(name)
    fd = lib.aegis_get_pinned(os.fsencode(path))
    if fd == -errno.ENOENT:
        return False  # a reload that has no use for it was faster
    check(fd, str(path))
    try:
        return check(lib.aegis_link_attached(fd), f"asking about {name}") == 1
    finally:
        os.close(fd)


def _read_history(pins: Pins) -> dict[str, int]:
    maps: dict[str, Map] = {}
    try:
        for name in SUM_MAPS:
            maps[name] = open_map(name, pins.open(pins.map_path(name)))
        return KernelSums(maps).kept()
    finally:
        for table in maps.values():
            os.close(table.fd)


def _value(pins: Pins, name: str, index: int, size: int) -> bytes:
    fd = pins.open(pins.map_path(name))
    try:
        return Map(name, fd, len(KEY_OF_ONE), size).get(index_key(index)) or bytes(size)
    finally:
        os.close(fd)
