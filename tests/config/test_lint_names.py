# SPDX-License-Identifier: Apache-2.0
"""``aegis check`` and the names in a policy: what they mean now, told in two seconds."""

import json
import socket
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from aegis.cli import main as cli
from aegis.cli.check_names import check_names, resolve_all
from aegis.names import Answer
from tests.config.conftest import Etc

ANSWERS = {
    "bob.com": ["192.0.2.7", "2001:db8::1"],
    "inside.com": ["10.0.0.1"],
    "half.com": ["192.0.2.7", "127.0.0.1"],
    "many.com": [f"192.0.2.{n}" for n in range(1, 10)],
    "eight.com": [f"192.0.2.{n}" for n in range(1, 9)],
    "crowd.com": [f"192.0.2.{n}" for n in range(1, 101)],
    "db.internal": ["10.0.0.1"],
}


def answer(name: str) -> Answer:
    """A resolver whose answers we know."""
    if name not in ANSWERS:
        return Answer(error="Name or service not known")
    return Answer(frozenset(map(ip_address, ANSWERS[name])))


def doubts(etc: Etc, keys: str) -> list[str]:
    loaded = etc.lone(f'[[app]]\nexe = "a"\n{keys}')
    return [etc.bare(str(problem)) for problem in check_names(loaded.policy, look_up=answer)]


def test_names_that_mean_one_service_raise_no_doubt(etc: Etc) -> None:
    """Also a private address for a name of this network, and up to eight addresses."""
    assert doubts(etc, 'remotes = ["bob.com:443", "db.internal", "eight.com", "8086", "::1"]') == []


def test_a_name_that_does_not_resolve(etc: Etc) -> None:
    """It allows nothing: a warning with the file and the line, for each place it stands at."""
    reason = "gone.com does not resolve, so it allows nothing: Name or service not known"
    assert doubts(etc, 'remotes = ["bob.com",\n  "gone.com:1"]\nlocals = ["gone.com"]') == [
        f'lone.toml:4:3: app.remotes: "gone.com:1": {reason}',
        f'lone.toml:5:11: app.locals: "gone.com": {reason}',
    ]


def test_a_public_name_with_inner_addresses(etc: Etc) -> None:
    """The agent refuses those: that is said, and whether anything is left."""
    [refused, nothing] = doubts(etc, 'remotes = ["inside.com:443"]')
    assert '"inside.com:443": 10.0.0.1 refused: a private address for a public name' in refused
    assert nothing.endswith("inside.com allows nothing: every address of it is refused")
    [refused] = doubts(etc, 'remotes = ["half.com"]')
    assert "127.0.0.1 refused: a loopback address for a public name" in refused


@pytest.mark.parametrize(("name", "said"), [("many.com", "has 9 addresses now (192.0.2.1, "),
                                            ("crowd.com", "has 64 addresses now")])  # fmt: skip
def test_a_name_with_many_addresses(etc: Etc, name: str, said: str) -> None:
    """A content network: whoever else is behind it is let through as well."""
    assert said in doubts(etc, f'remotes = ["{name}"]')[-1]


def test_a_resolver_that_hangs_costs_two_seconds_in_all() -> None:
    """And not two for each name; what was answered in time counts."""
    names = [f"slow{n}.com" for n in range(40)]

    def slow(name: str) -> Answer:
        time.sleep(60 if name != "bob.com" else 0)
        return answer(name)

    start = time.monotonic()
    found = resolve_all(["bob.com", *names], slow, timeout=0.2)
    assert time.monotonic() - start < 5
    assert found["bob.com"].addresses
    assert {found[name].error for name in names} == {"no answer within 0.2 s"}


@pytest.fixture
def policy(etc: Etc) -> Path:
    return etc.drop_in("no-such-program.toml", '[[app]]\nremotes = ["nobody.invalid:8086"]\n')


def test_check_asks_the_host_s_own_resolver(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A doubt and no error: it may resolve where the policy is for."""
    assert cli.main(["check", "--json", str(policy)]) == 0
    [warning] = json.loads(capsys.readouterr().out)["warnings"]
    assert (warning["key"], warning["line"]) == ("app.remotes", 2)
    assert "nobody.invalid" in warning["message"]


def test_check_offline_asks_nobody(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--offline`` sends nothing: not every policy's names are for every resolver."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    assert cli.main(["check", "--offline", str(policy)]) == 0
    assert capsys.readouterr().out == "ok: 0 errors, 0 warnings; 1 rule in 1 file\n"
