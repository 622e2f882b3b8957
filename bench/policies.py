# SPDX-License-Identifier: Apache-2.0
"""Policies of any size in which the timed programs have a rule."""

from dataclasses import dataclass
from pathlib import Path

FAR = "198.51.100.1"  # remote by policy, on lo of a test network
OPEN = 8086
SHUT = 8087

_TIMED = """
[[app]]
path = "{path}"
remotes = [{remotes}]
{keys}
"""


@dataclass(frozen=True)
class Shape:
    """How large a policy is, and what its rule of the timed programs says."""

    rules: int = 16
    entries_each: int = 1
    keys: str = 'actions = ["log", "block"]'
    settings: str = ""
    extra: str = ""  # rules of other programs


def write_policy(folder: Path, timed: list[Path], by_user: Path, shape: Shape) -> Path:
    """Write a policy of *shape* in which the programs *timed* may go to port OPEN anywhere.

    Their rules have as many prefixes as the others', and the address they go to is in one.
    So has *by_user*, whose rule names a user: the kernel keeps none of its answers.
    """
    text = f'[global]\nmode = "enforce"\nkill_budget = 1000000\n{shape.settings}\n{shape.extra}\n'
    for path in [*timed, by_user]:
        mine = ['"198.51.100.0/24:8086"', '"10.0.0.0/8:1-65535"', *_prefixes(0xFFFF, shape)]
        remotes = ", ".join(mine[: max(2, shape.entries_each)])
        keys = f'{shape.keys}\nuser = "root"' if path == by_user else shape.keys
        text += _TIMED.format(path=path, remotes=remotes, keys=keys)
    for number in range(shape.rules - len(timed) - 1):
        listed = ", ".join(_prefixes(number, shape))
        text += f'[[app]]\npath = "/nonexistent/p{number}"\nremotes = [{listed}]\n'
    policy = folder / "aegis.toml"
    policy.write_text(text)
    policy.chmod(0o644)
    return policy


def _prefixes(number: int, shape: Shape) -> list[str]:
    """Each another network with ports of its own: nothing that could be kept once for all."""
    return [
        f'"[2001:db8:{number:x}:{place:x}::/64]:{place + 1}-{place + 9}/tcp"'
        for place in range(shape.entries_each)
    ]
