# SPDX-License-Identifier: Apache-2.0
"""What the machine lacks is said in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aegis.bpf import probe
from aegis.bpf.cgroup import cgroup2_mount, instance_name
from aegis.errors import KernelError

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:5 - cgroup2 cgroup2 rw
"""


def test_no_btf_is_named() -> None:
    """With what to do about it."""
    with pytest.raises(KernelError, match=r"no BTF \(/nowhere\).*CONFIG_DEBUG_INFO_BTF"):
        probe.require(Path("/nowhere"))


def test_the_cgroup2_mount_is_found_wherever_it_is(tmp_path: Path) -> None:
    """On hybrid hosts it is not /sys/fs/cgroup; spaces are escaped in mountinfo."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(HYBRID)
    assert cgroup2_mount(mountinfo) == Path("/sys/fs/cgroup/uni fied")
    mountinfo.write_text("".join(HYBRID.splitlines(keepends=True)[:2]))
    with pytest.raises(KernelError, match="no cgroup2 mount"):
        cgroup2_mount(mountinfo)


def test_a_folder_that_is_no_cgroup_is_refused(tmp_path: Path) -> None:
    """And named, with the place where cgroups are."""
    with pytest.raises(KernelError, match=f"{tmp_path}: not a directory below the cgroup2 mount"):
        instance_name(tmp_path)
    with pytest.raises(KernelError, match="No such file"):
        instance_name(tmp_path / "absent")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up a capability")
def test_a_missing_capability_is_one_line() -> None:
    """The agent without CAP_BPF and CAP_PERFMON; nothing is attached, nothing is left."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    drop = "-bpf,-perfmon"
    code = "from aegis.bpf import probe; probe.require()"
    result = subprocess.run(
        [setpriv, f"--bounding-set={drop}", "--inh-caps=" + drop, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr.splitlines()[-1].endswith(
        "missing CAP_PERFMON, CAP_BPF: run as root (sudo)"
    )
