# SPDX-License-Identifier: Apache-2.0
"""What a boot of ``vmtests.boot --tour`` tells is judged: nothing is well by being absent."""

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.pace import HUNG_S
from vmtests import judge
from vmtests.qmp import Waker

GUEST = Path(judge.__file__).parent / "system/usr/local/lib/aegis-test"
UNLOAD = {"dpkg -r": "0: root: 51 links and maps removed", "pins": False, "dpkg -P": "0: ",
          "got": {"prober": "open"}, "units": "0: aegis.service not-found inactive dead",
          "left": []}  # fmt: skip


@pytest.mark.parametrize("name", judge.TOURS)
def test_a_tour_that_told_nothing_is_wrong_in_each_step(name: str) -> None:
    steps, wrong = judge.judge(name, {})
    assert steps and len(wrong) >= steps
    _, wrong = judge.judge(name, {"tour": {step: {} for step in judge.TOURS[name]}})
    assert len(wrong) >= sum(map(len, judge.TOURS[name].values()))


def test_each_step_of_the_guest_is_judged() -> None:
    text = (GUEST / "tour.py").read_text()
    for name in ("package", "reactions"):
        (steps,) = re.findall(rf"def {name}\(\).*?tour\((.*?)\)", text, re.DOTALL)
        assert set(re.findall(r"\w+", steps)) == set(judge.TOURS[name])
    (steps,) = re.findall(r"STEPS = \((.*?)\)", (GUEST / "guard_tour.py").read_text())
    assert set(re.findall(r"\w+", steps)) == set(judge.TOURS["guard"])
    (steps,) = re.findall(
        r"steps: .*? = \{(.*?)\}", (GUEST / "suspended.py").read_text(), re.DOTALL
    )
    assert set(re.findall(r'"(.*?)"', steps)) == set(judge.TOURS["suspend"])


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("dpkg -r", "1: prerm failed"), ("pins", True), ("got", {"prober": "denied"}),
        ("units", "0: aegis-kill.service loaded active running"), ("left", ["/etc/aegis.toml"]),
    ],
)  # fmt: skip
def test_a_removal_that_left_something_is_wrong(fact: str, value: object) -> None:
    def found(removal: dict[str, Any]) -> list[str]:
        wrong = judge.judge("package", {"tour": {"the_removal": removal}})[1]
        return [line for line in wrong if line.startswith("the_removal")]

    assert not found(UNLOAD)
    assert len(found(UNLOAD | {fact: value})) == 1


@pytest.mark.parametrize("got", [{"denied": 5, "open": 1}, {"open": 9}, {}, {"denied": 0}])
def test_one_connection_that_got_through_is_wrong(got: dict[str, int]) -> None:
    assert not judge.only_denied(got)


def machine(path: Path, states: list[str], asked: list[str]) -> threading.Thread:
    """Something that answers as QEMU does, *states* one after the other."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server:
            while states:
                client, _ = server.accept()
                with client, client.makefile("rwb", buffering=0) as lines:
                    lines.write(b'{"QMP": {}}\n')
                    while line := lines.readline():
                        asked.append(json.loads(line)["execute"])
                        got = {"status": states.pop(0)} if asked[-1] == "query-status" else {}
                        lines.write(b'{"event": "RTC_CHANGE"}\n')
                        lines.write(json.dumps({"return": got}).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_machine_is_woken_only_once_it_has_slept_long_enough(tmp_path: Path) -> None:
    asked: list[str] = []
    served = machine(tmp_path / "qmp", ["running", "suspended", "suspended", "running"], asked)
    waker = Waker(tmp_path / "qmp", 0.2)
    waker.look()
    waker.look()
    assert "system_wakeup" not in asked
    threading.Event().wait(0.25)
    waker.look()
    assert asked.count("system_wakeup") == 1
    waker.look()
    served.join(HUNG_S)
    assert asked.count("system_wakeup") == 1
    assert len(waker.naps) == 1
    assert waker.naps[0] >= 0.2
