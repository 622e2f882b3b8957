# SPDX-License-Identifier: Apache-2.0
"""The shipped example scripts do what they say, and careless ones stay harmless."""

import asyncio
from email import message_from_string
from pathlib import Path

from tests.actions.conftest import Write
from tests.actions.hooks import Hooks
from tests.actions.webhook import Webhook
from tests.hostile import HOOKS, run_hooks, write_hooks

EXAMPLES = Path(__file__).parents[2] / "etc" / "scripts"


def test_slack_gets_one_message_without_markup_of_the_attacker(
    hooks: Hooks, write_script: Write, tmp_path: Path, webhook: Webhook
) -> None:
    (tmp_path / "url").write_text(webhook.url + "\n")
    text = (EXAMPLES / "slack").read_text()
    write_script("slack", text.replace("/etc/aegis/slack.url", str(tmp_path / "url")))
    hooks.run(argv=("x", "<!channel> \udcff"), suppressed=2)
    hooks.notice("script-finished")
    [message] = webhook.received
    assert "blocked on" in message["text"] and "192.0.2.7:443" in message["text"]
    assert "&lt;!channel&gt; \ufffd" in message["text"] and "3 times" in message["text"]


def test_mail_root_sends_one_mail(hooks: Hooks, write_script: Write, tmp_path: Path) -> None:
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/args\ncat >{tmp_path}/mail\n')
    sendmail.chmod(0o755)
    text = (EXAMPLES / "mail-root").read_text()
    write_script("mail-root", text.replace("/usr/sbin/sendmail", str(sendmail)))
    hooks.run(argv=("x", "\nBcc: evil@example.org\n", "$(id)"))
    hooks.notice("script-finished")
    assert (tmp_path / "args").read_text() == "-i root\n"
    mail = message_from_string((tmp_path / "mail").read_text())
    assert mail.keys() == ["To", "Subject", "Content-Type"]
    assert "blocked" in mail["Subject"]
    assert "command   x %0ABcc: evil@example.org%0A %24(id)\n" in mail.get_payload()
    assert '"destination":{"ip":"192.0.2.7","port":443}' in mail.get_payload()


SEED = 20261124


def test_careless_scripts_run_no_command_of_the_attacker(script_dir: Path) -> None:
    """``python -m tests.hostile 100000`` is the same at length."""
    write_hooks(script_dir)
    canary = script_dir / "canary"
    outcomes = asyncio.run(run_hooks(script_dir, canary, 300, SEED))
    assert outcomes == {"script-finished": 100 * len(HOOKS)}
    assert not canary.exists()


def test_the_same_scripts_would_without_the_encoding(script_dir: Path) -> None:
    """Were they never to run anything, the test above would show nothing."""
    write_hooks(script_dir)
    canary = script_dir / "canary"
    asyncio.run(run_hooks(script_dir, canary, 300, SEED, encoded=False))
    assert canary.exists()
