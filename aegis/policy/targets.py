# SPDX-License-Identifier: Apache-2.0
"""Where notifications go: one URL a line. A URL holds secrets and is never shown."""

import hashlib
import re
from dataclasses import dataclass, field

TARGETS_MAX = 32
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[!-~]+")
_WEBHOOK = ("http", "https")


@dataclass(frozen=True, slots=True)
class Target:
    """*line* counts from 1; *scheme* is what may be said of the URL."""

    line: int
    scheme: str
    url: str = field(repr=False)

    @property
    def needs_apprise(self) -> bool:
        """A plain http or https URL gets the event as JSON; what else there is, apprise knows."""
        return self.scheme not in _WEBHOOK

    @property
    def key(self) -> str:
        """Tells targets apart, also after the file was changed."""
        return hashlib.sha256(self.url.encode()).hexdigest()


def parse_targets(content: bytes) -> tuple[Target, ...]:
    """Return the targets in *content*; empty lines and ``#`` comments are none.

    :raises ValueError: naming the line that is no URL, and nothing of what is in it
    """
    targets = []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _URL.fullmatch(text)
        if match is None:
            raise ValueError(f"line {number} is not a URL")
        targets.append(Target(number, match[1].lower(), text))
    if len(targets) > TARGETS_MAX:
        raise ValueError(f"{len(targets)} targets; the limit is {TARGETS_MAX}")
    return tuple(targets)
