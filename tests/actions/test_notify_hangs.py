# SPDX-License-Identifier: Apache-2.0
"""Notification targets that do not answer, and a library that does not come back."""

import asyncio
import time
from pathlib import Path

import pytest

from aegis.actions import notify as notify_module
from aegis.actions import runs
from aegis.actions.notify import Notifier
from aegis.policy.model import Notify
from tests.actions.sending import Sending, of
from tests.actions.webhook import Webhook
from tests.pace import HUNG_S

LIMIT = 5.0  # the other target's, too: what sends is a Python that has to start
HANGING = """
import time
time.sleep(600)
"""


def use_hanging_apprise(script_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_dir.chmod(0o755)
    (script_dir / "apprise.py").write_text(HANGING)
    child = script_dir / "child.py"
    path = f"import sys\nsys.path.insert(0, {str(script_dir)!r})\n"
    child.write_text(path + Path(runs.NOTIFY[-1]).read_text())
    monkeypatch.setattr(runs, "NOTIFY", (*runs.NOTIFY[:-1], str(child)))


def test_apprise_that_hangs_is_ended_tried_again_and_told(
    sending: Sending, script_dir: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its own import waits for a dead network share. Others are not asked twice."""
    use_hanging_apprise(script_dir, monkeypatch)
    monkeypatch.setattr(notify_module, "CHILD_S", LIMIT)
    sending.write("slack://SECRET", webhook.url)
    begun = time.monotonic()
    sending.run(of())
    assert 3 * LIMIT <= time.monotonic() - begun < 10 * LIMIT  # three times its limit
    assert len(webhook.received) == 1
    assert sending.outcomes == {"sent": 1, "retried": 2, "failed": 1}
    assert "(slack) failed: the sender did not finish" in sending.told.notices[0][1]


def test_a_target_that_hangs_keeps_nobody_waiting(
    sending: Sending, script_dir: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known to; each time it is asked again it takes no place but its own."""
    use_hanging_apprise(script_dir, monkeypatch)
    monkeypatch.setattr(notify_module, "CHILD_S", LIMIT)
    monkeypatch.setattr(notify_module, "BACKOFF_S", ())
    sending.settings |= {"limit": 99, "rule_limit": 99}
    took: list[float] = []

    async def scenario() -> None:
        notifier = Notifier(Notify(**sending.settings), sending.told)
        of()(notifier)
        await notifier.drain()  # it is known now
        for count in range(2, 8):
            begun = time.monotonic()
            of()(notifier)
            while len(webhook.received) < count:
                await asyncio.sleep(0.02)
            took.append(time.monotonic() - begun)
        await notifier.drain()

    sending.write("slack://SECRET", webhook.url)
    asyncio.run(asyncio.wait_for(scenario(), 3 * HUNG_S))
    assert max(took) < LIMIT * 5 / 6
