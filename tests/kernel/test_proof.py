# SPDX-License-Identifier: Apache-2.0
"""The self-test's event has its place in a full ring: a flood must not starve the watchdog."""

import errno
from collections.abc import Iterator

import pytest

from aegis.bpf.kernel import Kernel
from aegis.bpf.ring import BATCH, SELF_TEST, fields_of
from aegis.config.load import load_policy
from aegis.policy.compile import compile_policy
from aegis.policy.model import Resolution
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import Network
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

FLOODER = "flood-for-proof"
POLICY = f"""
[[app]]
exe = "{FLOODER}"
ports = ["8086"]
detent = 0
actions = ["log", "block"]
"""


@pytest.fixture
def kernel(workshop: Workshop) -> Iterator[tuple[Kernel, ScratchCgroup]]:
    """In force, and nobody reads the ring."""
    file = workshop.new_folder() / "aegis.toml"
    file.write_text(POLICY)
    file.chmod(0o644)
    with ScratchCgroup() as place:
        made = Kernel(place.path)
        made.start()
        try:
            made.apply(compile_policy(load_policy(file).policy, Resolution()))
            made.attach()
            yield made, place
        finally:
            made.abandon()


def test_a_proof_has_room_in_a_full_ring(
    kernel: tuple[Kernel, ScratchCgroup], network: Network, workshop: Workshop
) -> None:
    """As many proofs as half a minute sees, each told of behind events that nobody read."""
    made, place = kernel
    programs = Programs(place, network)
    try:
        words = ("flood", "127.0.0.1", "8088", "20000", "4")
        for _ in range(2):  # as two processes: one alone leaves a quarter of the ring to others
            programs.run(workshop.install(FLOODER), *words)
    finally:
        programs.close()
    assert made.counters()["lost"] > 0
    proven = [made.prove() for _ in range(8)]
    assert {result for _, result in proven} == {errno.EPERM}
    told, ring = [], made.open_ring()
    try:
        while records := ring.drain():
            told += [fields_of(raw) for raw in records]
    finally:
        ring.close()
    assert len(told) > 50 * BATCH
    tests = [record["owner.tgid"] for record in told if record["hook"] == SELF_TEST]
    assert tests == [pid for pid, _ in proven]
