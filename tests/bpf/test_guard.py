# SPDX-License-Identifier: Apache-2.0
"""What the guard is told of mounts, and what is told of it; the rest is tests/kernel/test_guard."""

import pytest

from aegis.bpf.guard import ABOVE, OURS, Refusal, mounts_in, refusals_by

DEBIAN = """\
22 28 0:21 / /sys rw shared:7 - sysfs sysfs rw
23 28 0:22 / /proc rw shared:14 - proc proc rw
28 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw
31 22 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw
33 22 0:29 / /sys/fs/bpf rw shared:11 - bpf bpf rw
90 28 0:29 / /mnt rw shared:99 - bpf bpf rw
"""
CONTAINER = """\
500 400 0:60 / / rw - overlay overlay rw
501 500 0:61 / /sys ro - sysfs sysfs ro
502 501 0:62 / /sys/fs rw - tmpfs tmpfs rw
503 502 0:29 / /sys/fs/bpf rw - bpf bpf rw
"""


@pytest.mark.parametrize(
    ("mountinfo", "found"),
    [
        pytest.param(DEBIAN, {33: OURS, 22: ABOVE}, id="debian"),
        pytest.param(CONTAINER, {503: OURS, 502: ABOVE, 501: ABOVE}, id="two-above"),
        pytest.param(DEBIAN.replace("33 22", "33 28"), {33: OURS}, id="in-the-root"),
        pytest.param("23 28 0:22 / /proc rw - proc proc rw\n", {}, id="none"),
    ],
)
def test_what_the_bpffs_lies_in_is_guarded_but_the_root(
    mountinfo: str, found: dict[int, int]
) -> None:
    """The root cannot be unmounted, and what is mounted in it is everybody's business."""
    assert mounts_in(mountinfo) == found


def _refusal(pid: int, what: str = "to send the agent signal", path: str = "/bin/x") -> Refusal:
    return Refusal(1, "signal", what, 9, pid, 0, "comm", path)


def test_a_refusal_says_who_and_what() -> None:
    assert str(_refusal(7)) == "refused /bin/x (PID 7) to send the agent signal 9"
    assert str(_refusal(7, path="")) == "refused comm (PID 7) to send the agent signal 9"


def test_who_tries_again_is_told_of_once_a_look() -> None:
    tried = [_refusal(7), _refusal(8), _refusal(7), _refusal(7, what="to trace process")]
    assert [len(same) for same in refusals_by(tried).values()] == [2, 1, 1]
