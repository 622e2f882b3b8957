# SPDX-License-Identifier: Apache-2.0
"""On a host that is to be let alone (``aegis.off``)."""

from collections.abc import Callable

from aegis import control
from aegis.bpf.pins import all_pins


def stay_off(why: str, instance: str, say: Callable[[str], None]) -> int:
    """Somebody was locked out: what an earlier agent left in force goes, too."""
    with control.only_one(instance):
        removed = sum(pins.remove() for pins in all_pins(instance))
    gone = f", and {removed} links and maps were taken out of the kernel" if removed else ""
    say(f"aegis: off: {why}: nothing is put in force{gone}")
    return 0
