# SPDX-License-Identifier: Apache-2.0
"""A network namespace of our own: no traffic of a test ever leaves it.

Its only device is ``lo``, which also carries addresses that are remote by
policy. Whatever runs on the one thread kept inside lives in the namespace, and
so do the sockets it opens and the processes it starts.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET = 0x40000000

# Documentation ranges (RFC 5737, RFC 3849) and a private one: all remote by policy.
REMOTE4 = "198.51.100.1"
REMOTE4_NEAR = "198.51.100.200"  # in the same /24
REMOTE4_OTHER = "203.0.113.9"
PRIVATE4 = "10.11.12.13"
REMOTE6 = "2001:db8::1"
REMOTE6_NEAR = "2001:db8::ffff"
REMOTE6_OTHER = "2001:db8:1::1"
REMOTES = (
    REMOTE4,
    REMOTE4_NEAR,
    REMOTE4_OTHER,
    PRIVATE4,
    REMOTE6,
    REMOTE6_NEAR,
    REMOTE6_OTHER,
)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Network:
    """The namespace; :meth:`call` runs a function inside."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=_unshare)
        self._ip("link", "set", "lo", "up")
        for address in REMOTES:
            extra = ["nodad"] if ":" in address else []
            bits = 128 if ":" in address else 32
            self._ip("address", "add", f"{address}/{bits}", "dev", "lo", *extra)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.submit(function, *args, **kwargs).result()

    def _ip(self, *words: str) -> None:
        self.call(subprocess.run, ["ip", *words], check=True)

    def close(self) -> None:
        self._thread.shutdown()
