# SPDX-License-Identifier: Apache-2.0
"""Whether there is memory to check two programs at once: a start in 64 MiB must not die of it."""

from pathlib import Path

import pytest

from aegis.bpf.memory import AMPLE, is_ample

MOUNTS = """\
30 20 0:26 / /cg1 rw - cgroup cgroup rw,memory
31 20 0:27 / /cg2 rw - cgroup2 cgroup2 rw
32 20 0:28 / /cpu rw - cgroup cgroup rw,cpu
"""


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


LITTLE, MUCH = str(AMPLE - 1), str(AMPLE)
FILES = [
    pytest.param({}, True, id="no-limit"),
    pytest.param({"cg2/a/b/memory.max": "max\n"}, True, id="max"),
    pytest.param({"cg2/a/b/memory.max": MUCH}, True, id="enough"),
    pytest.param({"cg2/a/b/memory.max": LITTLE}, False, id="ours"),
    pytest.param({"cg2/a/memory.max": LITTLE, "cg2/a/b/memory.max": "max"}, False, id="above"),
    pytest.param({"cg2/c/memory.max": LITTLE}, True, id="another-s"),
    pytest.param({"cg1/m/memory.limit_in_bytes": LITTLE}, False, id="version-1"),
    pytest.param({"cg1/memory.limit_in_bytes": "9223372036854771712"}, True, id="no-limit-1"),
    pytest.param({"cpu/m/memory.limit_in_bytes": LITTLE}, True, id="another-controller"),
    pytest.param({"cg2/a/b/memory.max": "?"}, True, id="unreadable"),
]


@pytest.mark.parametrize(("files", "ample"), FILES)
def test_the_least_of_all_limits_counts(files: dict[str, str], ample: bool, tmp_path: Path) -> None:
    """Of our cgroup and those above it, in either version."""
    put(tmp_path, "proc/self/mountinfo", MOUNTS)
    put(tmp_path, "proc/self/cgroup", "4:memory:/m\n3:cpu:/m\n0::/a/b\n")
    for name, text in files.items():
        put(tmp_path, name, text)
    assert is_ample(tmp_path) is ample


def test_without_proc_nobody_knows(tmp_path: Path) -> None:
    """Then it is as on any host."""
    assert is_ample(tmp_path)
