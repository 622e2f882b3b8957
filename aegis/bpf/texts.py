# SPDX-License-Identifier: Apache-2.0
"""Selector texts and the numbers the kernel knows them by.

A number means one text for as long as the maps live, over reloads and agents:
processes are classified by looking their stored strings up here.
"""

import os
import sys
from collections import Counter
from collections.abc import Mapping

from aegis.bpf.generation import TEXTS, index_key
from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import Map
from aegis.errors import KernelError


class Texts:
    """The four text maps; made from what they hold.

    Who else wrote there is not believed: a number that two keys have is nobody's, since we
    never give it twice, nor is a key ours that we would write otherwise.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = {kind: maps[name] for kind, (name, _) in TEXTS.items()}
        self._numbers = {kind: _read(table) for kind, table in self._maps.items()}
        self._used: set[tuple[str, str]] = set()
        self._next = 1 + max((n for known in self._numbers.values() for n in known.values()),
                             default=0)  # fmt: skip

    def number(self, kind: str, text: str) -> int:
        """Return the number of *text*, entering it if it is new.

        :raises KernelError: when it is longer than the kernel keeps, or the map is full.
        """
        known = self._numbers[kind]
        self._used.add((kind, text))
        if text not in known:
            self._maps[kind].put(text_key(kind, text), index_key(self._next))
            known[text] = self._next
            self._next += 1
        return known[text]

    def mend(self) -> None:
        """Have the maps hold what we entered, and nothing else."""
        for kind, known in self._numbers.items():
            table, found = self._maps[kind], dict(self._maps[kind].items())
            ours = {text_key(kind, text): index_key(number) for text, number in known.items()}
            table.fill([each for each in ours.items() if found.get(each[0]) != each[1]])
            table.clear(b"".join(key for key in found if key not in ours))

    def forget_unused(self) -> None:
        """Delete what was not asked for since the last call; only once it is out of force."""
        for kind, known in self._numbers.items():
            stale = [text for text in known if (kind, text) not in self._used]
            self._maps[kind].clear(b"".join(text_key(kind, text) for text in stale))
            for text in stale:
                del known[text]
        self._used.clear()


def text_key(kind: str, text: str) -> bytes:
    """The zero-padded key of *text*.

    :raises KernelError: when it does not fit with its NUL.
    """
    size = layout(TEXTS[kind][1]).size
    data = os.fsencode(text)
    if len(data) >= size or b"\0" in data:
        raise KernelError(f"{kind} selector longer than {size - 1} bytes: {text[:40]}…")
    return data.ljust(size, b"\0")


def _read(table: Map) -> dict[str, int]:
    found = dict(table.items())
    times = Counter(found.values())
    ours = {}
    for key, value in found.items():
        text = text_of(key)
        if times[value] == 1 and len(text) < len(key) and not key[len(text) :].strip(b"\0"):
            ours[os.fsdecode(text)] = int.from_bytes(value, sys.byteorder)
        else:
            table.clear(key)
    return ours
