# SPDX-License-Identifier: Apache-2.0
"""Little memory by either version of the controller, read on folders that look like theirs."""

from pathlib import Path

import pytest

from tests.soak.memory import V1, V2, Files, Memory, find
from tests.soak.scene import SoakError

OF_V1 = {
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.max_usage_in_bytes": "52428800\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
}
OF_V2 = {
    "memory.max": "max\n",
    "memory.peak": "52428800\n",
    "memory.swap.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 93\noom 9\noom_kill 7\noom_group_kill 0\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("files", "texts"), [(V1, OF_V1), (V2, OF_V2)], ids=["v1", "v2"])
def test_what_the_kernel_says_is_read(files: Files, texts: dict[str, str], tmp_path: Path) -> None:
    """Kills, not how often memory was short; bytes."""
    memory = Memory(write(tmp_path, texts), files)
    memory.limit(64 << 20)
    assert (tmp_path / files.limit).read_text() == "67108864"
    assert (memory.peak, memory.kills) == (52428800, 7)


def test_no_memory_goes_to_swap_instead(tmp_path: Path) -> None:
    """What is swapped out is killed for nothing; a kernel without swap has no such file."""
    memory = Memory(write(tmp_path, OF_V2), V2)
    memory.limit(1)
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    (tmp_path / "memory.swap.max").unlink()
    memory.limit(1)
    assert not (tmp_path / "memory.swap.max").exists()


def test_the_version_is_the_one_that_governs(tmp_path: Path) -> None:
    """On a hybrid host cgroup2 is mounted, too, without it; stock Debian has only that."""
    first = tmp_path / "memory"
    hybrid = write(tmp_path / "unified", {"cgroup.controllers": "hugetlb\n"})
    with pytest.raises(SoakError, match="no memory controller"):
        find(first, hybrid)
    write(first, OF_V1)
    assert find(first, hybrid) == (first, V1)
    stock = write(tmp_path / "stock", {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    assert find(tmp_path / "none", stock) == (stock, V2)
