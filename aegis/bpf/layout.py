# SPDX-License-Identifier: Apache-2.0
"""Structs of ``kernel/aegis.h`` as packers, derived from what cffi compiled.

No format string is written by hand: a field moved in the header moves here.
"""

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from aegis._bpf import ffi

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _fields(ctype: Any, prefix: str) -> list[tuple[str, str]]:
    """Flatten to (name, code) pairs; a struct of one field is that field."""
    result: list[tuple[str, str]] = []
    members = [(name, field.type) for name, field in ctype.fields]
    for name, kind in members:
        full = prefix if prefix and len(members) == 1 else f"{prefix}.{name}".lstrip(".")
        if kind.kind == "struct":
            result += _fields(kind, full)
        elif kind.kind == "array" and kind.item.kind == "struct":
            for index in range(kind.length):
                result += _fields(kind.item, f"{full}.{index}")
        elif kind.kind == "array":
            result += _array(full, kind)
        else:
            result.append((full, _CODES[ffi.sizeof(kind)]))
    return result


def _array(name: str, kind: Any) -> list[tuple[str, str]]:
    size = ffi.sizeof(kind.item)
    if size == 1:
        return [(name, f"{kind.length}s")]
    return [(f"{name}.{index}", _CODES[size]) for index in range(kind.length)]


class Layout:
    """One struct: *size* in bytes, *names* flattened in order, native byte order."""

    def __init__(self, name: str) -> None:
        ctype = ffi.typeof(f"struct {name}")
        fields = _fields(ctype, "")
        self.name = name
        self.names = tuple(field for field, _ in fields)
        self.struct = struct.Struct("=" + "".join(code for _, code in fields))
        self.size: int = ffi.sizeof(ctype)
        if self.struct.size != self.size:
            raise TypeError(f"struct {name} has implicit padding")
        self._blank = [b"" if code.endswith("s") else 0 for _, code in fields]

    def packer(self, *names: str) -> Callable[..., bytes]:
        """Return ``pack(*values)`` for these fields in this order; others are zero."""
        places = [self.names.index(name) for name in names]
        blank, pack = self._blank, self.struct.pack

        def pack_fields(*values: int | bytes) -> bytes:
            row = blank.copy()
            for place, value in zip(places, values, strict=True):
                row[place] = value
            return pack(*row)

        return pack_fields

    def pack(self, **values: int | bytes) -> bytes:
        return self.packer(*values)(*values.values())

    def unpack(self, data: bytes) -> dict[str, Any]:
        return dict(zip(self.names, self.struct.unpack(data), strict=True))


@cache
def layout(name: str) -> Layout:
    """The layout of ``struct NAME``."""
    return Layout(name)


def offset_of(name: str, field: str) -> int:
    """Where *field* begins in ``struct NAME``."""
    return int(ffi.offsetof(f"struct {name}", field))


def text_of(data: bytes) -> bytes:
    """The bytes before the first NUL."""
    return data.split(b"\0", 1)[0]
