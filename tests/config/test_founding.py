# SPDX-License-Identifier: Apache-2.0
"""The founding examples of policy-language.md load as written, without an error."""

from pathlib import Path

import pytest

from aegis.config.load import load_lone
from aegis.policy.model import Actions, Mode, Rule, Selectors
from tests.config.conftest import Etc

MAIN = """\
[global]
include_dirs = ["/etc/aegis.d"]          # process-specific drop-ins
script_dirs = ["/etc/aegis/scripts"]     # hook scripts
detent = 86400                           # seconds one program:address:port stays quiet
default_actions = ["log", "notify"]      # a configured program reaches something else
unconfigured_actions = ["log"]           # a program with no [[app]] connects

[whitelist]                              # allowed and not reported, for every program
ips = ["192.168.0.0/16", "10.0.0.0/8"]
ports = ["80", "443"]
programs = ["systemd"]                   # exe base name, or a full path

[[app]]
exe = "telegraf"                         # base name of the executable
# path = "/usr/bin/telegraf"             # full path
# cmdline = "/usr/bin/mytelegrafwrapper" # command line as it was at exec
# ignore = true                          # do not watch this program
ports = ["8086"]                         # only these ports, remote or local
# remotes = ["bob.com:8086"]             # only these going out
# locals = ["8086"]                      # only these going to localhost
# local = false                          # no local connection at all
# remote = false                         # no remote connection at all
actions = ["log"]
"""
COMMENTED = [line for line in MAIN.splitlines() if line.startswith("# ")]


def texts(rule: Rule, key: str) -> list[str] | None:
    entries = getattr(rule, key)
    return None if entries is None else [entry.text for entry in entries]


def test_the_main_file(etc: Etc) -> None:
    """Example 1."""
    etc.main_file.write_text(MAIN)
    policy = etc.load().policy
    settings, whitelist = policy.settings, policy.whitelist
    assert (settings.include_dirs, settings.script_dirs) == (
        ("/etc/aegis.d",),
        ("/etc/aegis/scripts",),
    )
    assert (settings.detent, settings.mode) == (86400, Mode.ENFORCE)
    assert settings.default_actions == Actions(log=True, notify=True)
    assert settings.unconfigured_actions == Actions(log=True)
    assert [entry.text for entry in whitelist.ips] == ["192.168.0.0/16", "10.0.0.0/8"]
    assert [entry.text for entry in whitelist.ports] == ["80", "443"]
    assert [program for program, _ in whitelist.programs] == ["systemd"]
    rule = next(rule for rule in policy.rules if rule.selectors == Selectors(exe="telegraf"))
    assert (texts(rule, "ports"), rule.actions) == (["8086"], Actions(log=True))


@pytest.mark.parametrize("line", COMMENTED, ids=lambda line: line.split()[1])
def test_each_commented_key_may_be_taken_in(etc: Etc, line: str) -> None:
    """Whoever removes one ``#`` has a policy that loads."""
    text = MAIN.replace(line, line.removeprefix("# ")).replace(
        '"/etc/aegis.d"', f'"{etc.drop_ins}"'
    )
    etc.main_file.write_text(text)
    [rule] = etc.load().policy.rules
    key = line.split()[1]
    assert key in {where_key for _, where_key in etc.load().places}
    assert rule.selectors.exe == "telegraf"


def test_a_drop_in_with_its_selector(etc: Etc) -> None:
    """Example 2: the telegraf table with only exe, ports and actions."""
    etc.drop_in("myapp.toml", '[[app]]\nexe = "telegraf"\nports = ["8086"]\nactions = ["log"]\n')
    [rule] = etc.load().policy.rules
    assert (rule.selectors, texts(rule, "ports")) == (Selectors(exe="telegraf"), ["8086"])


def test_a_later_drop_in_replaces_it(etc: Etc) -> None:
    """Example 3: named after the program, it replaces (2) whole; local is left alone."""
    etc.drop_in("myapp.toml", '[[app]]\nexe = "telegraf"\nports = ["8086"]\nactions = ["log"]\n')
    etc.drop_in("zz-telegraf.toml", '[[app]]\nremotes = ["8086"]\nactions = ["kill"]\n')
    loaded = etc.load()
    [rule] = loaded.policy.rules
    assert rule.selectors == Selectors(exe="telegraf")
    assert (texts(rule, "ports"), texts(rule, "remotes")) == (None, ["8086"])
    assert (texts(rule, "locals"), rule.local) == (None, None)
    assert rule.actions == Actions(kill=True)
    assert len(loaded.replaced) == 1


def test_two_programs_in_one_file(etc: Etc) -> None:
    """Example 4: what the file is named after does not matter."""
    etc.drop_in("zz-myserver.toml", '[[app]]\nexe = "telegraf"\n[[app]]\nexe = "wazuh-agentd"\n')
    exes = [rule.selectors.exe for rule in etc.load().policy.rules]
    assert exes == ["telegraf", "wazuh-agentd"]


def test_reactions_of_the_other_examples(etc: Etc) -> None:
    """Examples 5 to 7: a script or kill for nginx, the default for strangers, a script for sshd."""
    for name in ("slack", "isolate"):
        (etc.top / "scripts" / name).touch()
    etc.drop_in("nginx.toml", '[[app]]\nremotes = ["8080"]\nactions = ["script:slack"]\n')
    etc.drop_in("sshd.toml", '[[app]]\nremotes = []\nactions = ["log", "script:isolate"]\n')
    loaded = etc.load()
    assert loaded.warnings == ()
    nginx, sshd = loaded.policy.rules
    assert nginx.actions == Actions(scripts=("slack",))
    assert (sshd.selectors.exe, sshd.remotes) == ("sshd", ())
    assert sshd.actions == Actions(log=True, scripts=("isolate",))


def test_the_shipped_example_loads_without_a_warning() -> None:
    """It watches only, and says nothing is wrong with itself."""
    loaded = load_lone(Path(__file__).parents[2] / "etc" / "aegis.toml")
    assert loaded.warnings == ()
    assert loaded.policy.settings.mode is Mode.OBSERVE
    assert loaded.policy.settings.include_dirs == ("/etc/aegis.d",)
