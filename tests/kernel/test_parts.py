# SPDX-License-Identifier: Apache-2.0
"""The main object's programs are loaded in parts: each once, of the same maps, or none at all."""

import os
import threading

import pytest

from aegis.bpf import adopt, parts
from aegis.bpf.maps import Map
from aegis.bpf.object import MAPS, UNKEYED_MAPS, BpfObject
from aegis.errors import KernelError
from tests.kernel.test_early import bpf_descriptors


def refuse(_: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("threads", [True, False])
def test_every_program_is_loaded_once_and_uses_the_main_object_s_maps(
    threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next agent could not take them over; also where there is no thread to be had."""
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    before = bpf_descriptors(collect=True)
    loaded = BpfObject()
    abouts = [adopt.ask(loaded.program_fd(name)) for name in loaded.program_names()]
    assert len({about.number for about in abouts}) == len(abouts)
    mine = (*MAPS, *UNKEYED_MAPS, *loaded.constants())
    known = {Map(name, loaded.map_fd(name), 0, 0).number for name in mine}
    assert {number for about in abouts for number in about.maps} <= known
    assert loaded.apart.keys() == {name for part in parts.PARTS for name in part}
    loaded.close()
    assert bpf_descriptors() == before


@pytest.mark.parametrize("part", range(len(parts.PARTS)))
def test_a_part_that_is_refused_is_an_error_and_nothing_is_left(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = parts._Part._load

    def fail(self: parts._Part) -> None:
        if self._names == parts.PARTS[part]:
            raise KernelError("refused")
        load(self)

    monkeypatch.setattr(parts._Part, "_load", fail)
    before = bpf_descriptors(collect=True)
    with pytest.raises(KernelError, match="refused"):
        BpfObject()
    assert bpf_descriptors() == before


def test_on_one_processor_it_is_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part costs more than it gains there."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    loaded = BpfObject()
    assert loaded.apart == {} and loaded.program_fd("aegis_connect4") >= 0
    loaded.close()
