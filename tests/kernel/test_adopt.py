# SPDX-License-Identifier: Apache-2.0
"""The next agent takes loaded programs over, and only those that are what they claim to be."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aegis._bpf import lib
from aegis.bpf import adopt
from aegis.bpf.kernel import CGROUP, TRACING, Kernel
from aegis.errors import KernelError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy, Resolution
from tests.kernel.cgroup import ScratchCgroup


def start(place: Path) -> Kernel:
    """What an agent does at its start, as far as the kernel goes."""
    kernel = Kernel(place)
    kernel.start()
    try:
        kernel.apply(compile_policy(Policy(), Resolution()))
        kernel.attach()
    except BaseException:
        kernel.close()
        raise
    return kernel


@pytest.fixture(scope="module")
def place() -> Iterator[ScratchCgroup]:
    with ScratchCgroup() as made:
        yield made


@pytest.fixture
def folder(place: ScratchCgroup) -> Iterator[Path]:
    """Where an agent that has ended left its programs."""
    start(place.path).close()
    pins = Kernel(place.path).pins
    yield pins.folder / "programs" / adopt.build()
    pins.remove()


def running(kernel: Kernel) -> dict[str, int]:
    """The program of every link, by the kernel's number."""
    return {name: adopt.ask(kernel.object.program_fd(name)).number for name in (*CGROUP, *TRACING)}


def linked(kernel: Kernel) -> dict[str, int]:
    """The pins of those links; optional programs are tried anew at each start."""
    return {name: kernel.pins.link_path(name).stat().st_ino for name in (*CGROUP, *TRACING)}


def test_the_next_agent_loads_nothing(place: ScratchCgroup, folder: Path) -> None:
    """The very same programs go on, and the links of the tracing ones are the same, too."""
    first = start(place.path)
    before = running(first)
    links = linked(first)
    first.close()
    second = start(place.path)
    try:
        assert second.object.not_adopted == ""
        assert running(second) == before
        assert linked(second) == links
    finally:
        second.close()


def named(folder: Path, name: str) -> Path:
    [found] = folder.glob(f"{name}-*")
    return found


def swap(folder: Path) -> None:
    """A program under the name of another."""
    one, other = named(folder, "aegis_connect4"), named(folder, "aegis_sendmsg4")
    path, _, tag = str(one).rpartition("-")
    other.rename(path + "-" + tag + "_")
    one.unlink()
    Path(path + "-" + tag + "_").rename(one)


def remove_one(folder: Path) -> None:
    named(folder, "aegis_seed").unlink()


def rename_build(folder: Path) -> None:
    folder.rename(folder.with_name("0123456789abcdef"))


def other_constants(folder: Path) -> None:
    settings, texts = folder / "_rodata_settings", folder / "aegis_rodata"
    settings.unlink()
    texts.rename(settings)


SPOILT = [
    pytest.param(swap, "aegis_connect4 is another program", id="swapped"),
    pytest.param(remove_one, "aegis_seed is not pinned", id="missing"),
    pytest.param(rename_build, "no programs of this build", id="other-build"),
    pytest.param(other_constants, "settings are others", id="constants"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILT)
def test_what_is_not_ours_is_loaded_anew(
    spoil: Callable[[Path], None], reason: str, place: ScratchCgroup, folder: Path
) -> None:
    """It says why, attaches what it loaded itself, and the one after it can adopt again."""
    spoil(folder)
    for wanted in (reason, ""):
        kernel = start(place.path)
        try:
            assert kernel.object.not_adopted.endswith(wanted) or wanted in kernel.object.not_adopted
            assert bool(wanted) == bool(kernel.object.not_adopted)
            for name in (*CGROUP, *TRACING):
                fd = kernel.pins.open(kernel.pins.link_path(name))
                assert adopt.link_program(fd) == running(kernel)[name], name
                os.close(fd)
        finally:
            kernel.close()
    assert [path.name for path in folder.parent.iterdir()] == [adopt.build()]


def test_programs_of_other_maps_are_not_adopted(place: ScratchCgroup, folder: Path) -> None:
    """They would decide by tables that nobody fills any more."""
    with ScratchCgroup() as other:
        elsewhere = start(other.path)
        try:
            theirs = elsewhere.pins.folder / "programs" / adopt.build()
            for path in theirs.iterdir():
                fd = elsewhere.pins.open(path)
                elsewhere.pins.pin(fd, folder / path.name)
                os.close(fd)
            kernel = start(place.path)
            assert "uses other maps" in kernel.object.not_adopted
            kernel.close()
        finally:
            elsewhere.close()
            elsewhere.pins.remove()


@pytest.mark.parametrize("what", ["links", "maps/active", "programs", "."])
def test_pins_that_others_could_open_are_refused(
    what: str, place: ScratchCgroup, folder: Path
) -> None:
    """With the place and the way out; what is in force stays so."""
    path = (folder.parents[1] / what).resolve()
    mode = path.stat().st_mode
    path.chmod(mode | 0o004)
    with pytest.raises(KernelError, match=f"{path}: belongs to uid 0, mode 0.0[14]"):
        start(place.path)
    assert len(list(folder.parents[1].glob("links/*"))) >= len((*CGROUP, *TRACING))
    path.chmod(mode)
    start(place.path).close()


def test_a_link_somebody_took_off_is_attached_again(place: ScratchCgroup, folder: Path) -> None:
    """A start must not fail for it: then nothing would ever be in force there again."""
    kernel = Kernel(place.path)
    fd = kernel.pins.open(kernel.pins.link_path("aegis_connect4"))
    lib.aegis_link_detach(fd)
    assert not lib.aegis_link_attached(fd)
    os.close(fd)
    kernel = start(place.path)
    fd = kernel.pins.open(kernel.pins.link_path("aegis_connect4"))
    assert lib.aegis_link_attached(fd)
    os.close(fd)
    kernel.close()
