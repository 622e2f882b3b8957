# SPDX-License-Identifier: Apache-2.0
"""Notifications, to a real web server: how many, what they hold, and when it fails."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.actions import notify as notify_module
from aegis.actions import runs
from aegis.actions.notify import Notifier
from aegis.actions.processes import TICK_NS
from aegis.events.ecs import to_ecs
from aegis.policy.model import Notify
from tests.actions.hooks import CONTEXT
from tests.actions.sending import Sending, of
from tests.actions.webhook import Webhook, serve_webhook
from tests.events.factory import HOSTILE, make_event
from tests.pace import HUNG_S


def test_a_webhook_gets_the_event_as_json(sending: Sending, webhook: Webhook) -> None:
    sending.write("# comment", webhook.url)
    sending.run(of(suppressed=2))
    [body] = webhook.received
    assert body["title"].startswith("[aegis] blocked on ")
    assert body["title"].endswith(": curl -> 192.0.2.7:443/tcp")
    assert "curl -s https://192.0.2.7/" in body["message"] and "3 times" in body["message"]
    assert body["event"]["destination"]["port"] == 443
    assert sending.outcomes == {"sent": 1} and sending.told.notices == []


def test_hostile_names_stay_on_their_line(sending: Sending, webhook: Webhook) -> None:
    sending.write(webhook.url)
    sending.settings |= {"limit": 99, "rule_limit": 99}

    def each(notifier: Notifier) -> None:
        for text in HOSTILE:
            of(path=f"/tmp/{text}", argv=(text,))(notifier)  # noqa: S108

    sending.run(each)
    assert len(webhook.received) == len(HOSTILE)
    for body in webhook.received:
        assert body["title"].isprintable()
        assert [line.isprintable() for line in body["message"].split("\n")] == [True] * 3


def test_two_mebibytes_of_arguments_are_cut(sending: Sending, webhook: Webhook) -> None:
    sending.write(webhook.url)
    sending.run(of(argv=("x" * 2**21,)))
    [body] = webhook.received
    assert len(body["message"]) < 1500 and body["event"] is None


def test_without_targets_nothing_happens(sending: Sending) -> None:
    sending.settings["urls_file"] = None
    sending.run(of())
    assert (sending.outcomes, sending.told.notices) == ({}, [])


def test_a_million_events_are_a_few_notifications_and_one_digest(
    sending: Sending, webhook: Webhook
) -> None:
    """At most *limit* in all and *rule_limit* of one rule, and the digest accounts for the rest."""
    sending.write(webhook.url)
    sending.settings |= {"limit": 5, "rule_limit": 2, "window": 3600}
    records = [to_ecs(make_event(rule=f"/etc/aegis.toml:{line}"), CONTEXT) for line in range(4)]

    def flood(notifier: Notifier) -> None:
        for number in range(1_000_000):
            notifier.submit(records[number % 4], 0)
        assert notifier._digest is not None  # the window ends now, and not in an hour
        notifier._digest.cancel()
        notifier._send_digest()

    sending.run(flood)
    events = [body["event"] for body in webhook.received if body["event"]]
    [digest] = [body for body in webhook.received if not body["event"]]
    rules = [event["rule"]["name"] for event in events]
    assert len(rules) == 5 and max(map(rules.count, rules)) == 2
    assert digest["title"] == "[aegis] 999995 more events"
    assert "within 3600 s" in digest["message"] and "by /etc/aegis.toml:3" in digest["message"]
    assert sending.outcomes == {"sent": 6, "digested": 999_995}
    assert sending.told.kinds() == ["notifications-digested"]


def test_a_digest_comes_once_a_window(sending: Sending, webhook: Webhook) -> None:
    sending.write(webhook.url)
    sending.settings |= {"limit": 1, "rule_limit": 1, "window": 1}

    def flood(notifier: Notifier) -> None:
        for _ in range(50):
            of()(notifier)

    sending.run(flood, seconds=1.2)
    assert [body["event"] is None for body in webhook.received].count(True) == 1
    assert sending.outcomes == {"sent": 2, "digested": 49}


def test_a_failing_target_is_tried_again_until_it_works(sending: Sending, webhook: Webhook) -> None:
    webhook.failures = 2
    sending.write(webhook.url)
    sending.run(of())
    assert (webhook.tries, len(webhook.received)) == (3, 1)
    assert sending.outcomes == {"sent": 1, "retried": 2} and sending.told.notices == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/SECRET", "Connection refused"),
        ("http://user:SECRET@127.0.0.1/", "InvalidURL"),
        ("http://[SECRET/", "ValueError"),
    ],
)
def test_a_target_that_stays_failing_is_given_up_and_told_without_its_secret(
    sending: Sending, webhook: Webhook, url: str, reason: str
) -> None:
    """The other target gets its message once, whatever this one does."""
    sending.write(webhook.url, url)
    sending.run(of())
    assert len(webhook.received) == 1
    assert sending.outcomes == {"sent": 1, "retried": 2, "failed": 1}
    [(kind, message, _)] = sending.told.notices
    assert kind == "notify-failed"
    assert message == f"notification to {sending.urls}:2 (http) failed: {reason}"


def test_a_redirect_does_not_take_the_event_elsewhere(sending: Sending, webhook: Webhook) -> None:
    webhook.failures, webhook.status = 99, 302
    sending.write(webhook.url)
    sending.run(of())
    assert webhook.tries == 3 and "HTTP status 302" in sending.told.notices[0][1]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o644), "is open to others (mode 0644)"),
        (lambda path: os.chown(path, 1000, 0), "is owned by uid 1000"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("SECRET"), "line 1 is not a URL"),
    ],
)
def test_a_file_of_urls_that_may_not_be_used_is_told(
    sending: Sending, webhook: Webhook, spoil: Callable[[Path], object], reason: str
) -> None:
    """It is looked at each time, so a change needs no reload either."""
    sending.write(webhook.url)
    spoil(sending.urls)
    sending.run(of())
    assert webhook.tries == 0 and sending.outcomes == {"failed": 1}
    assert reason in sending.told.notices[0][1]


def test_a_user_that_is_gone_sends_nothing(sending: Sending, webhook: Webhook) -> None:
    """Never as root instead."""
    sending.write(webhook.url)
    sending.settings["user"] = 4294967294
    sending.run(of())
    assert webhook.tries == 0 and "has no account" in sending.told.notices[0][1]


APPRISE = """
import json, os
from pathlib import Path

class Apprise:
    def add(self, url):
        self.url = url
        return not url.startswith("unknown:")

    def notify(self, title, body, body_format):
        print("noise with", self.url)
        status = Path("/proc/self/status").read_text()
        seen = {"url": self.url, "title": title, "status": status, "env": dict(os.environ)}
        Path("PLACE").write_text(json.dumps(seen))
        return True
"""


def test_the_sender_has_no_rights_and_no_environment(
    sending: Sending, script_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for apprise, to see as whom it is called."""
    place = script_dir / "place"
    place.touch()
    place.chmod(0o666)
    script_dir.chmod(0o755)
    (script_dir / "apprise.py").write_text(APPRISE.replace("PLACE", str(place)))
    child = script_dir / "child.py"
    path = f"import sys\nsys.path.insert(0, {str(script_dir)!r})\n"
    child.write_text(path + Path(runs.NOTIFY[-1]).read_text())
    monkeypatch.setattr(runs, "NOTIFY", (*runs.NOTIFY[:-1], str(child)))
    monkeypatch.setenv("OF_THE_AGENT", "x")
    sending.write("slack://SECRET", "unknown://x")
    sending.run(of())
    seen = json.loads(place.read_text())
    status = dict(line.split(":\t", 1) for line in seen["status"].splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {"65534"}
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    assert set(seen["env"]) <= {"PATH", "LANG", "HOME", "LC_CTYPE"}
    assert seen["url"] == "slack://SECRET" and seen["title"].startswith("[aegis] blocked")
    assert sending.outcomes == {"sent": 1, "retried": 2, "failed": 1}
    assert "does not know this kind of URL" in sending.told.notices[0][1]


def test_without_apprise_its_targets_fail_clearly(
    sending: Sending, script_dir: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = script_dir / "child.py"
    missing = 'import sys\nsys.modules["apprise"] = None\n'
    child.write_text(missing + Path(runs.NOTIFY[-1]).read_text())
    script_dir.chmod(0o755)
    monkeypatch.setattr(runs, "NOTIFY", (*runs.NOTIFY[:-1], str(child)))
    sending.write("slack://SECRET", webhook.url)
    sending.run(of())
    assert len(webhook.received) == 1
    assert "(slack) failed: apprise is not installed" in sending.told.notices[0][1]


def test_apprise_sends_what_it_knows(sending: Sending, webhook: Webhook) -> None:
    """The real one: its kind of JSON to a web server, and a kind that nobody knows."""
    pytest.importorskip("apprise")
    url = webhook.url.replace("http://", "json://")
    sending.write(url, "nosuchkind://SECRET")
    sending.run(of())
    [body] = webhook.received
    assert body["title"].endswith("curl -> 192.0.2.7:443/tcp")
    assert "curl -s https://192.0.2.7/" in body["message"]
    assert sending.outcomes == {"sent": 1, "retried": 2, "failed": 1}
    assert "does not know this kind of URL" in sending.told.notices[0][1]


@pytest.mark.parametrize("kind", ["html", "text"])
def test_what_a_program_is_called_is_no_markup(
    sending: Sending, webhook: Webhook, kind: str
) -> None:
    """The real apprise, and a target that wants its messages so."""
    pytest.importorskip("apprise")
    sending.write(webhook.url.replace("http://", "json://") + f"?format={kind}")
    sending.run(of(argv=("curl", "<b>", "&amp;")))
    [body] = webhook.received
    assert ("&lt;b&gt;" if kind == "html" else "<b>") in body["message"]


def test_close_gives_up_what_is_not_sent(
    sending: Sending, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_module, "BACKOFF_S", (60.0,))
    sending.settings["limit"] = 1
    webhook.failures = 9
    sending.write(webhook.url)

    async def scenario() -> None:
        notifier = Notifier(Notify(**sending.settings), sending.told)
        for _ in range(3):
            of()(notifier)
        while not webhook.tries:
            await asyncio.sleep(0.01)
        await notifier.close()

    asyncio.run(asyncio.wait_for(scenario(), HUNG_S))
    [(kind, message, fields)] = sending.told.notices
    assert kind == "notifications-dropped" and fields["aegis"] == {"dropped": 3}
    assert message == "1 notifications and a digest of 2 events were not sent"


def test_events_of_the_sender_itself_are_not_sent(sending: Sending, webhook: Webhook) -> None:
    """Its connection is an event like any other: without this, one would lead to the next."""
    sending.write(webhook.url)

    async def scenario() -> None:
        notifier = Notifier(Notify(**sending.settings), sending.told)
        of()(notifier)
        await notifier.drain()
        [(own, child)] = notifier._own.items()
        assert child.start_ticks is not None
        of(pid=own, start_boot_ns=child.start_ticks * TICK_NS + 1)(notifier)
        await notifier.drain()
        assert (len(webhook.received), notifier.outcomes["own"]) == (1, 1)
        # Another process that was given its number a moment later is no child of ours.
        of(pid=own, start_boot_ns=(child.start_ticks + 1) * TICK_NS)(notifier)
        await notifier.drain()

    asyncio.run(scenario())
    assert len(webhook.received) == 2


def test_a_reload_does_not_begin_a_new_window(sending: Sending, webhook: Webhook) -> None:
    """Unless it changes the limits."""
    sending.write(webhook.url)
    sending.settings["rule_limit"] = 1

    def reload_between(notifier: Notifier) -> None:
        of()(notifier)
        notifier.settings = Notify(**sending.settings)
        of()(notifier)
        notifier.settings = Notify(**sending.settings | {"rule_limit": 2})
        of()(notifier)

    sending.run(reload_between)
    assert sending.outcomes == {"sent": 2, "digested": 1}


def test_a_target_that_failed_does_not_keep_others_waiting(
    sending: Sending, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a burst, it is asked for the first ones; the others get on at once."""
    monkeypatch.setattr(notify_module, "REST_S", 600.0)
    monkeypatch.setattr(notify_module, "BACKOFF_S", ())
    sending.settings |= {"limit": 20, "rule_limit": 20}
    webhook.failures = 99

    def burst(notifier: Notifier) -> None:
        for _ in range(20):
            of()(notifier)

    with serve_webhook() as fine:
        sending.write(webhook.url, fine.url)
        sending.run(burst)
    assert len(fine.received) == 20
    assert webhook.tries == 2  # as many as are sent at once
    assert sending.outcomes == {"sent": 20, "failed": 20}
    assert all("HTTP status 500" in notice[1] for notice in sending.told.notices)
