# SPDX-License-Identifier: Apache-2.0
"""The kernel's verdict is the reference's: what the mission promises first."""

import os
import time
from collections import Counter

import pytest

from tests.kernel.settings import AT_ROOT
from tests.prove import prove

# Emulated processors are slow; the full run is `./dev prove --triples 10000000`.
TRIPLES = int(os.environ.get("AEGIS_TRIPLES", "8000" if AT_ROOT else "200000"))


def test_kernel_and_reference_agree_on_random_policies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Verdict, reason, scope, rule and actions, over every reason there is."""
    seed = time.time_ns() % 1_000_000_007
    with capsys.disabled():
        print(f"\nseed {seed}: python -m tests.prove --triples {TRIPLES} --seed {seed}")
    seen: Counter[str] = Counter()
    differences = list(prove(TRIPLES, seed, seen))
    assert not differences, differences[0]
    assert sum(seen.values()) == TRIPLES
    reasons = {what.split()[0] for what in seen}
    assert reasons == {
        "harmless", "program", "rule-allows", "rule-denies", "unconfigured", "untrusted",
        "whitelist",
    }  # fmt: skip
