# SPDX-License-Identifier: Apache-2.0
"""The limits of a policy are what the kernel's tables hold; a full policy is read quickly."""

import re
import time
from pathlib import Path

from aegis.config import limits
from aegis.config.lint import lint
from tests.config.conftest import Etc

HEADER = (Path(__file__).parents[2] / "kernel" / "aegis.h").read_text()


def kernel(name: str) -> int:
    match = re.search(rf"\bAEGIS_{name} = (\d+),", HEADER)
    assert match, f"AEGIS_{name} is gone from kernel/aegis.h"
    return int(match[1])


def test_texts_fit_with_their_nul() -> None:
    assert kernel("NAME_SIZE") - 1 == limits.EXE_BYTES
    assert kernel("PATH_SIZE") - 1 == limits.PATH_BYTES
    assert kernel("PATH_SIZE") - 2 == limits.CMDLINE_BYTES
    assert kernel("UNIT_SIZE") - 2 == limits.UNIT_BYTES


def test_rules_and_entries_fit() -> None:
    """App 0 is the whitelist; maps of prefixes hold two generations during a reload."""
    assert kernel("APPS_MAX") - 1 == limits.APPS
    assert kernel("NETS_MAX") >= limits.ENTRIES * 2
    assert kernel("HOSTS_MAX") >= limits.ENTRIES * 2
    assert kernel("STRINGS_MAX") >= limits.APPS + limits.PROGRAMS
    assert kernel("RULES_MAX") >= (limits.APPS + limits.PROGRAMS) * 2


def test_a_full_policy_is_checked_in_seconds(etc: Etc) -> None:
    """4,096 rules with 65,536 entries: 2 s is the aim; of the processor; four times that fails."""
    rules = [
        f'[[app]]\npath = "/nonexistent/p{n}"\nremotes = ['
        + ", ".join(f'"[2001:db8:{n:x}:{m:x}::/64]:{m + 1}-{m + 9}/tcp"' for m in range(16))
        + "]\n"
        for n in range(limits.APPS)
    ]
    for part in range(4):
        etc.drop_in(f"{part}.toml", "".join(rules[part::4]))
    start = time.process_time()
    loaded = etc.load()
    lint(loaded)
    taken = time.process_time() - start
    assert len(loaded.policy.rules) == limits.APPS
    assert taken < 8
    print(f"full policy: {taken:.2f} s")
