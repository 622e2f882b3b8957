# SPDX-License-Identifier: Apache-2.0
"""What policy-language.md itself writes down as a policy is one: read from its text."""

import re

import pytest

from aegis.config.entries import parse_address_entry, parse_destination, parse_port_entry
from aegis.policy.model import Protocol
from tests.config.conftest import Etc
from tests.sentences import SHIPPED

TEXT = SHIPPED.read_text()
EXAMPLE = TEXT.split("```toml\n")[1].split("```")[0]
COMMENTED = [line for line in EXAMPLE.splitlines() if re.match(r"# \w+ = ", line)]
_ENTRIES = TEXT.split("\nEntries (")[1].split("any of them may end")[0]
FORMS = re.findall(r'`"([^"]+)"`', _ENTRIES)


def at_home(etc: Etc, text: str) -> str:
    """The example with its directories where this test can make them."""
    return text.replace('"/etc/aegis.d"', f'"{etc.drop_ins}"').replace(
        '"/etc/aegis/scripts"', f'"{etc.top / "scripts"}"'
    )


def test_the_example_loads_as_written(etc: Etc) -> None:
    """Every key of it, the added ones too; nothing in it is an error."""
    etc.main_file.write_text(EXAMPLE)
    [rule] = etc.load().policy.rules
    assert rule.selectors.exe == "telegraf"
    etc.main_file.write_text(at_home(etc, EXAMPLE))
    assert etc.load().warnings == ()


@pytest.mark.parametrize("line", COMMENTED, ids=lambda line: line.split()[1])
def test_each_commented_key_may_be_taken_in(etc: Etc, line: str) -> None:
    """Whoever removes one ``#`` has a policy that loads, and the key is in it."""
    text = at_home(etc, EXAMPLE).replace(line, line.removeprefix("# "))
    key = line.split()[1]
    if key == "user":
        text = text.replace('"telegraf"                      # added', '"root"  # added')
        assert 'user = "root"' in text  # the account comes with the program's own package
    etc.main_file.write_text(text)
    loaded = etc.load()
    [rule] = loaded.policy.rules
    assert loaded.place(rule.where, key) != rule.where


def test_no_key_of_the_example_went_unseen() -> None:
    """A key added to the example must be found by the tests above."""
    keys = {line.split()[1] for line in COMMENTED}
    assert keys == {
        "path", "cmdline", "user", "unit", "ignore", "remotes", "locals", "local", "remote",
        "listen", "peers", "strict", "detent",
    }  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_each_form_of_an_entry_is_read(text: str) -> None:
    """As it stands, and with a protocol where it has a port."""
    assert len(FORMS) == 9
    entry = parse_destination(text)
    assert entry.protocols == frozenset(Protocol)
    if (entry.first_port, entry.last_port) == (1, 65535):
        if entry.network is not None:
            assert parse_address_entry(text).network == entry.network
        return
    for protocol in Protocol:
        assert parse_destination(f"{text}/{protocol}").protocols == frozenset({protocol})
    if entry.network is None and entry.name is None:
        assert parse_port_entry(text) == entry


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('remotes = ["10.0.0.1/8"]', "3:12: app.remotes: .*host bits set; write"),
        ('ports = ["0"]', "3:10: app.ports: .*there is no port 0; ports go from 1"),
        ('ports = ["9-8"]', '3:10: app.ports: .*is reversed; write "8-9"'),
        ("ports = [8086]", '3:10: app.ports: .*is a number; write "8086"'),
        ('prots = ["1"]', '3:1: app.prots: .*did you mean "ports"'),
    ],
    ids=["host-bits", "port-0", "reversed", "number", "misspelt"],
)
def test_what_is_an_error_is_told_with_what_to_write(etc: Etc, line: str, said: str) -> None:
    """File, line and a suggestion."""
    [error] = etc.lone_errors(f'[[app]]\nexe = "a"\n{line}')
    assert re.match(f"lone.toml:{said}", error)
