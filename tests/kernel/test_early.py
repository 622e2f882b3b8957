# SPDX-License-Identifier: Apache-2.0
"""What is loaded beforehand, on a thread, is taken or let go of, whatever becomes of the start."""

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aegis.bpf.early import Early
from aegis.bpf.kernel import Kernel
from aegis.bpf.tiers import LSM, TRACING
from aegis.errors import KernelError
from tests.kernel.cgroup import ScratchCgroup


@pytest.fixture
def place() -> Iterator[Path]:
    with ScratchCgroup() as made:
        yield made.path


def bpf_descriptors(*, collect: bool = False) -> int:
    """Of this process, to maps, programs and links; *collect*: once others' have been closed."""
    if collect:
        gc.collect()
    held = 0
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory's own
            held += "bpf" in str(fd.readlink())
    return held


def nobody_comes(place: Path) -> None:
    Early(Kernel(place).pins).close()


def the_main_object_is_taken(place: Path) -> None:
    early = Early(Kernel(place).pins)
    taken = early.take()
    assert taken is not None and taken.program_fd("aegis_connect4") >= 0
    assert early.take() is None
    early.close()
    taken.close()


def an_optional_one_is_taken_or_was_refused(place: Path) -> None:
    early = Early(Kernel(place).pins)
    taken = early.take()
    assert taken is not None
    for name in (TRACING, LSM):
        try:
            optional = early.optional(name)
        except KernelError as error:
            assert "the kernel refused the BPF programs" in str(error)
        else:
            if optional is not None:
                optional.close()
    early.close()
    taken.close()


def the_start_fails(place: Path) -> None:
    """While the thread may be at work with the object."""
    kernel = Kernel(place)
    kernel.load_early()
    kernel.start()
    kernel.abandon()
    assert not kernel.pins.exists()


@pytest.mark.parametrize(
    "what",
    [
        nobody_comes,
        the_main_object_is_taken,
        an_optional_one_is_taken_or_was_refused,
        the_start_fails,
    ],
)
def test_nothing_is_left_open(what: Callable[[Path], None], place: Path) -> None:
    before = bpf_descriptors(collect=True)
    what(place)
    assert bpf_descriptors() == before
