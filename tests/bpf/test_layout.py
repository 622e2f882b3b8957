# SPDX-License-Identifier: Apache-2.0
"""Bytes that cross the boundary: derived from the header, compared with what C wrote."""

import pytest

from aegis._bpf import ffi, lib
from aegis.bpf.generation import MODES, SCOPES
from aegis.bpf.layout import layout, text_of
from aegis.bpf.object import MAPS
from aegis.bpf.ring import KILLS, REASONS, SCOPE_NAMES, VERDICTS
from aegis.events.event import IdentityFlag

STRUCTS = sorted(
    {name for pair in MAPS.values() for name in pair if name not in (None, "u64")} | {"aegis_event"}
)

WITHOUT_PLAIN_FIELDS = {
    "aegis_counters", "aegis_name", "aegis_port_dir", "aegis_port_page", "aegis_text", "aegis_unit",
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_lands_where_c_has_it(name: str) -> None:
    """Each named field, packed alone, is read back by the compiler's own accessors."""
    made = layout(name)
    blank = ffi.new(f"struct {name} *")
    plain = [field for field in made.names if isinstance(getattr(blank, field, None), int)]
    assert plain or name in WITHOUT_PLAIN_FIELDS
    for field in plain:
        data = made.pack(**{field: 1})
        copy = ffi.from_buffer(f"struct {name} *", data)
        assert getattr(copy, field) == 1, field


def test_nested_fields_and_arrays_land_where_c_has_them() -> None:
    """The two structs with structs in arrays inside."""
    data = layout("aegis_app").pack(**{"base.1.udp": 7, "flags": 3})
    app = ffi.from_buffer("struct aegis_app *", data)
    assert (app.base[1].udp, app.base[1].tcp, app.base[0].udp, app.flags) == (7, 0, 0, 3)
    pack = layout("aegis_net_key").packer("prefixlen", "host.app", "host.addr")
    data = pack(96, 5, b"\1" * 16)
    key = ffi.from_buffer("struct aegis_net_key *", data)
    assert (key.prefixlen, key.host.app, bytes(key.host.addr)) == (96, 5, b"\1" * 16)


def test_a_field_that_does_not_exist_is_an_error() -> None:
    """A misspelt field must not silently stay zero."""
    with pytest.raises(ValueError, match="not in tuple"):
        layout("aegis_config").pack(generations=1)


def test_text_ends_at_the_first_nul() -> None:
    assert text_of(b"curl\0\0left") == b"curl"


@pytest.mark.parametrize(
    ("prefix", "known"),
    [
        ("AEGIS_SCOPE_", set(SCOPES.values())),
        ("AEGIS_SCOPE_", set(SCOPE_NAMES)),
        ("AEGIS_MODE_", set(MODES.values())),
        ("AEGIS_VERDICT_", set(VERDICTS)),
        ("AEGIS_REASON_", set(REASONS)),
        ("AEGIS_KILL_", set(KILLS)),
        ("AEGIS_ID_", {int(flag) for flag in IdentityFlag}),
    ],
)
def test_python_knows_every_number_of_the_header(prefix: str, known: set[int]) -> None:
    """A number added in C without a name in Python would be an event nobody can read."""
    header = {
        getattr(lib, name)
        for name in dir(lib)
        if name.startswith(prefix) and not name.endswith("_MAX")
    }
    assert known == header


def test_identity_flags_have_the_names_of_the_header() -> None:
    """The same bit, the same word."""
    for flag in IdentityFlag:
        assert getattr(lib, f"AEGIS_ID_{flag.name}") == flag
