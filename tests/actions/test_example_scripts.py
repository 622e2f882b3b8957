# SPDX-License-Identifier: Apache-2.0
"""The shipped example scripts do what they say, and careless ones stay harmless."""

import asyncio
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

from aegis.events.event import Hook
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


NOWHERE: dict[str, Any] = {
    "hook": Hook.SOCKET,
    "transport": "sctp",
    "destination": None,
    "destination_port": 0,
}


def test_slack_is_told_of_a_socket_that_goes_nowhere(
    hooks: Hooks, write_script: Write, tmp_path: Path, webhook: Webhook
) -> None:
    (tmp_path / "url").write_text(webhook.url + "\n")
    text = (EXAMPLES / "slack").read_text()
    write_script("slack", text.replace("/etc/aegis/slack.url", str(tmp_path / "url")))
    hooks.run(**NOWHERE)
    hooks.notice("script-finished")
    assert "/usr/bin/curl makes a socket of sctp\n" in webhook.received[0]["text"]


@pytest.mark.parametrize(
    ("changes", "isolated", "subject"),
    [
        ({}, "reached for 192.0.2.7 port 443", "uid 0 to 192.0.2.7 port 443"),
        (NOWHERE, "made a socket of sctp", "uid 0 makes a socket of sctp"),
    ],
)
def test_the_others_say_what_was_done(
    hooks: Hooks, write_script: Write, changes: dict[str, Any], isolated: str, subject: str
) -> None:
    for name, tool in (("isolate", "/usr/sbin/nft -f -"), ("mail-root", "/usr/sbin/sendmail -i")):
        text = (EXAMPLES / name).read_text().replace("/run/systemd/system", "/nonexistent")
        write_script(name, text.replace(tool, "/bin/cat # "))
    hooks.run(**changes)
    assert hooks.told.kinds() == ["script-finished"] * 2
    outputs = [fields["aegis"]["output"] for _, _, fields in hooks.told.notices]
    said, mail = sorted(outputs, key=lambda text: "Subject:" in text)
    assert said.endswith(f"isolated after uid 0 {isolated}\n")
    assert message_from_string(mail)["Subject"].endswith(subject)


FAKE = '#!/bin/sh\necho "$0 $*" >>PLACE/said\n'


@pytest.mark.parametrize("systemd", [True, False])
def test_mail_root_sends_one_mail(
    hooks: Hooks, write_script: Write, tmp_path: Path, systemd: bool
) -> None:
    """Under systemd by a service of its own: that of Aegis may not write to a spool."""
    text = (EXAMPLES / "mail-root").read_text()
    for path, then in (
        ("/usr/sbin/sendmail", f"cat >{tmp_path}/mail"),
        ("/usr/bin/systemd-run", 'shift 4; exec "$@"'),
    ):
        fake = tmp_path / Path(path).name
        fake.write_text(FAKE.replace("PLACE", str(tmp_path)) + then)
        fake.chmod(0o755)
        text = text.replace(path, str(fake))
    running = tmp_path if systemd else tmp_path / "none"
    write_script("mail-root", text.replace("/run/systemd/system", str(running)))
    hooks.run(argv=("x", "\nBcc: evil@example.org\n", "$(id)"))
    hooks.notice("script-finished")
    said = (tmp_path / "said").read_text().replace(f"{tmp_path}/", "").splitlines()
    through = "systemd-run --quiet --collect --wait --pipe sendmail -i root"
    assert said == ([through, "sendmail -i root"] if systemd else ["sendmail -i -odi root"])
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
