# SPDX-License-Identifier: Apache-2.0
"""Port ranges to the numbers of ``struct aegis_ports``: inline, or a directory.

One range fits in the number itself. Anything else becomes a directory of 64
pages of 1,024 bits, each page and each directory stored once a generation.
"""

from aegis._bpf import lib
from aegis.bpf.layout import layout
from aegis.errors import KernelError
from aegis.policy.tables import Ranges

_PAGE_BITS: int = lib.AEGIS_PAGE_PORTS
_PAGES: int = lib.AEGIS_DIR_PAGES


class PortSets:
    """The port directories and pages of one generation."""

    def __init__(self) -> None:
        self._numbers: dict[Ranges, int] = {}
        # Directory 0 cannot be named: lo == 0, hi == 0 is the empty set.
        self._directories: dict[tuple[int, ...], int] = {(): 0}
        self._pages: dict[int, int] = {0: 0}

    def number(self, ranges: Ranges) -> int:
        """Return the set's number.

        :raises KernelError: when a generation holds too many different lists.
        """
        if ranges not in self._numbers:
            self._numbers[ranges] = self._make(ranges)
        return self._numbers[ranges]

    def _make(self, ranges: Ranges) -> int:
        if not ranges:
            return 0
        if len(ranges) == 1:
            first, last = ranges[0]
            return first | last << 16
        bits = 0
        for first, last in ranges:
            bits |= ((1 << (last - first + 1)) - 1) << first
        mask = (1 << _PAGE_BITS) - 1
        words = (bits >> (page * _PAGE_BITS) & mask for page in range(_PAGES))
        pages = tuple(self._pages.setdefault(word, len(self._pages)) for word in words)
        number = self._directories.setdefault(pages, len(self._directories))
        self._check()
        return number << 16

    def _check(self) -> None:
        for what, count, limit in (
            ("different port lists", len(self._directories), lib.AEGIS_DIRS_MAX),
            ("different pages of ports", len(self._pages), lib.AEGIS_PAGES_MAX),
        ):
            if count > limit:
                raise KernelError(f"the policy needs over {limit - 1} {what}: too many")

    def directories(self) -> list[tuple[int, bytes]]:
        """(number, ``struct aegis_port_dir``) of each; page numbers are u16, host order."""
        pack = layout("aegis_port_dir").struct.pack
        return [(number, pack(*pages)) for pages, number in self._directories.items() if pages]

    def pages(self) -> list[tuple[int, bytes]]:
        """(number, ``struct aegis_port_page``) of each."""
        size = layout("aegis_port_page").size
        # Bit n of the page is bit n % 64 of word n // 64: on little-endian hosts
        # that is the plain integer; the words are written one by one for the rest.
        pack = layout("aegis_port_page").struct.pack
        words, mask = size // 8, (1 << 64) - 1
        return [
            (number, pack(*(bits >> (64 * word) & mask for word in range(words))))
            for bits, number in self._pages.items()
        ]
