# SPDX-License-Identifier: Apache-2.0
"""Maps by name: fill, verify, clear, look up. Keys and values are packed bytes."""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aegis._bpf import ffi, lib
from aegis.errors import KernelError

KEY_OF_ONE = b"\0\0\0\0"  # the only key of a map with one entry
Digest = tuple[int, int]  # how many entries, and a sum over them
BATCH = 4096  # entries of ``batches``: far above those of one bucket, which go together


def check(result: int, what: str) -> int:
    """Return *result*.

    :raises KernelError: naming *what* when it is a negative errno.
    """
    if result < 0:
        raise KernelError(f"{what}: {os.strerror(-result)}")
    return result


@dataclass(frozen=True)
class Rows:
    """Entries, all keys and all values one after the other without gaps."""

    keys: bytes
    values: bytes
    count: int


def pack_rows(entries: Sequence[tuple[bytes, bytes]]) -> Rows:
    keys = b"".join(key for key, _ in entries)
    return Rows(keys, b"".join(value for _, value in entries), len(entries))


class Map:
    """One open map; the descriptor belongs to whoever made this.

    *writes*: how often it was written by this object, so that others' writes can be told.
    """

    def __init__(self, name: str, fd: int, key_size: int, value_size: int) -> None:
        self.name, self.fd = name, fd
        self.key_size, self.value_size = key_size, value_size
        self.writes = 0

    def fill(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Put *entries* in and read them back.

        :raises KernelError: when the map is full or an entry does not stick;
            some entries may be in by then.
        """
        rows = pack_rows(entries)
        self.write(rows)
        self.verify(rows)

    def write(self, rows: Rows) -> None:
        """Put entries in, and do not read them back.

        :raises KernelError: as ``fill``.
        """
        self.writes += bool(rows.count)
        result = lib.aegis_map_fill(self.fd, *self._places(rows), 0)
        if result in (-errno.E2BIG, -errno.ENOSPC):  # a hash says the one, a trie the other
            raise KernelError(f"the kernel table '{self.name}' is full")
        check(result, f"filling the kernel table '{self.name}'")

    def verify(self, rows: Rows) -> None:
        """
        :raises KernelError: when one of these entries is not there.
        """
        result = lib.aegis_map_verify(self.fd, *self._places(rows))
        check(result, f"verifying the kernel table '{self.name}'")

    def digest_of(self, rows: Rows) -> Digest:
        """What ``digest`` returns of a table with these entries and no others."""
        return rows.count, int(lib.aegis_digest(*self._places(rows)))

    def _places(self, rows: Rows) -> tuple[bytes, int, bytes, int, int]:
        return rows.keys, self.key_size, rows.values, self.value_size, rows.count

    def holds(self, keys: bytes, values: bytes) -> bool:
        """Whether *keys*, one after the other without gaps, have these values."""
        sizes = (keys, self.key_size, values, self.value_size, len(keys) // self.key_size)
        result = lib.aegis_map_verify(self.fd, *sizes)
        if result in (-errno.EILSEQ, -errno.ENOENT):
            return False
        return check(result, f"reading the kernel table '{self.name}'") == 0

    def digest(self) -> Digest:
        """How many entries a hash has, and a number that changes with any of them."""
        total = ffi.new("uint64_t *")
        result = lib.aegis_map_digest(self.fd, self.key_size, self.value_size, total)
        return check(result, f"reading the kernel table '{self.name}'"), int(total[0])

    def put(self, key: bytes, value: bytes) -> None:
        self.fill([(key, value)])

    def clear(self, keys: bytes) -> None:
        """Delete *keys*, one after the other without gaps; those not there are no error."""
        self.writes += bool(keys)
        result = lib.aegis_map_clear(self.fd, keys, self.key_size, len(keys) // self.key_size)
        check(result, f"clearing the kernel table '{self.name}'")

    def sweep(self, at: int, keep: int) -> int:
        """Delete entries whose key has another number than *keep*; return how many.

        *at*: the byte of the key where that __u32 (host order) stands.
        """
        result = lib.aegis_map_sweep(self.fd, self.key_size, at, keep)
        count = check(result, f"sweeping the kernel table '{self.name}'")
        self.writes += bool(count)
        return count

    def read(self, capacity: int, skip: int | None = None) -> tuple[bytes, bytes]:
        """Return all keys and all values of a hash, each one after the other without gaps.

        *skip*: leave out the keys that begin with this __u32 (host order).

        :raises KernelError: when there are more than *capacity*.
        """
        keys, values = bytearray(capacity * self.key_size), bytearray(capacity * self.value_size)
        skipped = ffi.NULL if skip is None else ffi.new("uint32_t *", skip)
        sizes = (self.key_size, self.value_size)
        places = (ffi.from_buffer(keys), ffi.from_buffer(values), capacity)
        result = lib.aegis_map_read(self.fd, *sizes, skipped, *places)
        count = check(result, f"reading the kernel table '{self.name}'")
        return (
            bytes(memoryview(keys)[: count * self.key_size]),
            bytes(memoryview(values)[: count * self.value_size]),
        )

    def batches(self, skip: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """As ``read``, in pieces: however many there are, little memory is used at a time.

        They may be deleted as they come. *skip*: as there.
        """
        keys = bytearray(BATCH * self.key_size)
        values = bytearray(BATCH * self.value_size)
        skipped = ffi.NULL if skip is None else ffi.new("uint32_t *", skip)
        cursor, more = ffi.new("char[64]"), ffi.new("int *")
        sizes = (self.key_size, self.value_size, skipped, cursor, more)
        while True:
            places = (ffi.from_buffer(keys), ffi.from_buffer(values), BATCH)
            result = lib.aegis_map_batch(self.fd, *sizes, *places)
            count = check(result, f"reading the kernel table '{self.name}'")
            if count:
                yield bytes(keys[: count * self.key_size]), bytes(values[: count * self.value_size])
            if not more[0]:
                return

    def count(self) -> int:
        """How many entries a hash has."""
        result = lib.aegis_map_count(self.fd, self.key_size, self.value_size)
        return check(result, f"counting the kernel table '{self.name}'")

    @property
    def room(self) -> int:
        """How many entries it may have."""
        return self._about("max_entries")

    @property
    def number(self) -> int:
        """The kernel's own number for it, until the next boot."""
        return self._about("map_id")

    @property
    def is_frozen(self) -> bool:
        """Whether nobody can write to it any more, from user space."""
        return self._about("frozen") == 1

    def _about(self, what: str) -> int:
        text = Path(f"/proc/self/fdinfo/{self.fd}").read_text()
        found = re.search(rf"^{what}:\s+(\d+)$", text, re.MULTILINE)
        if not found:
            raise KernelError(f"this kernel does not say a map's {what}")
        return int(found[1])

    def get(self, key: bytes) -> bytes | None:
        value = ffi.new("char[]", self.value_size)
        result = lib.aegis_map_lookup(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        check(result, f"reading the kernel table '{self.name}'")
        return bytes(ffi.buffer(value))

    def keys(self) -> Iterator[bytes]:
        """Every key; entries changed meanwhile may be missed or seen twice."""
        key, following = ffi.NULL, ffi.new("char[]", self.key_size)
        while lib.aegis_map_next_key(self.fd, key, following) == 0:
            found = bytes(ffi.buffer(following))
            yield found
            key = ffi.new("char[]", found)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        for key in list(self.keys()):
            value = self.get(key)
            if value is not None:
                yield key, value
