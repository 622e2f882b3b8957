# SPDX-License-Identifier: Apache-2.0
"""A directory hook scripts may be in: /tmp is writable by others, so not there."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aegis.actions import notify as notify_module
from tests.actions.hooks import Hooks
from tests.actions.sending import Sending
from tests.actions.webhook import Webhook, serve_webhook
from tests.kernel.cgroup import ScratchCgroup

Write = Callable[[str, str], Path]


@pytest.fixture
def script_dir() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("hook scripts are root's")
    path = Path(tempfile.mkdtemp(prefix="aegis-test-", dir="/run"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def write_script(script_dir: Path) -> Write:
    """Write an executable file into ``script_dir``; a first line "#!" is not added."""

    def write(name: str, text: str) -> Path:
        path = script_dir / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def hooks(script_dir: Path) -> Iterator[Hooks]:
    with ScratchCgroup() as scratch:
        yield Hooks(script_dir, scratch.path)
        assert list(scratch.path.glob("*/")) == []  # each run's is gone


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serve_webhook() as hook:
        yield hook


@pytest.fixture
def sending(script_dir: Path, monkeypatch: pytest.MonkeyPatch, seen_by_nobody: None) -> Sending:
    monkeypatch.setattr(notify_module, "BACKOFF_S", (0.1, 0.2))
    monkeypatch.setattr(notify_module, "REST_S", 0.05)
    return Sending(script_dir)
