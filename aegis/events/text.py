# SPDX-License-Identifier: Apache-2.0
"""Hostile text made safe for a terminal, an environment and JSON.

Text comes from processes under suspicion: any byte but NUL, undecodable ones
held as surrogate escapes. Three places, three forms; none is ever mixed:

* a terminal gets ``printable``: every invisible or steering character escaped;
* a hook script's environment gets ``env_value``: percent-encoded ASCII;
* JSON gets ``json_text``: U+FFFD for each undecodable byte, and, where that
  lost something, ``exact_hex`` of the true bytes in a field beside it.
"""

import re

ENV_VALUE_MAX = 4096
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_SURROGATE = re.compile("[\ud800-\udfff]")
# str.isprintable() lets these through though a terminal shows nothing (or
# glues them to a neighbour): grapheme joiner, Hangul and Mongolian fillers,
# Khmer inherent vowels, variation selectors.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# What shells evaluate even inside quotes, and our own escape character.
_ENV_UNSAFE = frozenset(b"%$`\\")
_ENV_BYTES = tuple(
    chr(byte) if 0x20 <= byte <= 0x7E and byte not in _ENV_UNSAFE else f"%{byte:02X}"
    for byte in range(256)
)


def printable(text: str) -> str:
    r"""Return *text* as a terminal may show it: one line, no control or hidden characters.

    ``\xNN`` stands for a C0 control, DEL or an undecodable byte, ``\uNNNN`` and
    ``\UNNNNNNNN`` for any other character that is not visible (C1, bidi
    controls, zero-width, separators, unassigned); a backslash is doubled, so
    that the result means one text only.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable() and not _BLANK.match(char):
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's form of byte NN
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def env_value(text: str) -> str:
    """Return *text* for a hook script's environment; at most 4 KiB.

    Printable ASCII stays; the bytes of everything else, and of ``%``, ``$``,
    backquote, backslash and a leading ``-``, become ``%XX``. Never cut inside
    an escape.
    """
    # Each byte gives at least one character, so more bytes cannot be needed.
    parts = [_ENV_BYTES[byte] for byte in exact_bytes(text[:ENV_VALUE_MAX])]
    if parts and parts[0] == "-":
        parts[0] = "%2D"
    value = "".join(parts)
    if len(value) <= ENV_VALUE_MAX:
        return value
    value = value[:ENV_VALUE_MAX]
    # "%" only ever starts an escape: drop one that lost its end.
    start = value.rfind("%", ENV_VALUE_MAX - 2)
    return value[:start] if start >= 0 else value


def json_text(text: str) -> str:
    """Return *text* with each undecodable byte as U+FFFD: no lone surrogate is left."""
    return text if text.isascii() else _SURROGATE.sub(REPLACEMENT, text)


def exact_hex(text: str) -> str | None:
    """Return the bytes of *text* as hex if ``json_text`` cannot carry it, else None."""
    if text.isascii() or not _SURROGATE.search(text):
        return None
    return exact_bytes(text).hex()


def exact_bytes(text: str) -> bytes:
    """Return the bytes *text* was decoded from; never fails."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate os.fsdecode never makes
        return text.encode("utf-8", "surrogatepass")
