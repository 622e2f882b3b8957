# SPDX-License-Identifier: Apache-2.0
"""Sends one message to some targets. A program of its own, run as an unprivileged user.

Reads one JSON object on standard input and writes one for each target as it is done:
target → why it failed ("" when it did not). What a library says is not passed on: it
may hold a URL.
"""

import ctypes
import json
import os
import resource
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import Any

ANSWER_S = 10.0  # for a connection to say something
ALL_S = 20.0  # for all targets
_PR_SET_DUMPABLE = 4


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A secret is for the host it was given for."""


def send(url: str, message: dict[str, Any]) -> str:
    """Send *message*; return why it failed, or an empty string."""
    scheme = url.partition(":")[0].lower()
    try:
        return _post(url, message) if scheme in ("http", "https") else _apprise(url, message)
    except urllib.error.HTTPError as error:
        return f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        return _reason(error.reason)
    except Exception as error:
        return _reason(error)


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror and error.errno:
        return error.strerror[:60]
    return type(error).__name__[:60]


def _post(url: str, message: dict[str, Any]) -> str:
    request = urllib.request.Request(  # noqa: S310 (http or https, see send)
        url, json.dumps(message).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    with opener.open(request, timeout=ANSWER_S):
        return ""


def _apprise(url: str, message: dict[str, Any]) -> str:
    try:
        import apprise  # noqa: PLC0415 (takes a second, and may not be installed)
    except ImportError:
        return "apprise is not installed"
    target = apprise.Apprise()
    if not target.add(url):
        return "apprise does not know this kind of URL"
    # Else a target that is fed HTML or Markdown takes a program's arguments for it.
    sent = target.notify(title=message["title"], body=message["message"], body_format="text")
    return "" if sent else "apprise could not send it"


def main() -> None:
    # Another process of the same user must not read the URLs out of our memory.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with suppress(OSError):  # where the unit refuses that it has none already
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    request = json.loads(sys.stdin.buffer.read())
    targets = request["targets"]
    pool = ThreadPoolExecutor(max_workers=len(targets))
    sending = {pool.submit(send, url, request["message"]): key for key, url in targets.items()}
    with suppress(TimeoutError):
        for future in as_completed(sending, ALL_S):
            key = sending.pop(future)
            # At once: what is done is known, even if another one hangs until we are killed.
            os.write(answer, json.dumps({key: future.result()}).encode() + b"\n")
    for key in sending.values():
        os.write(answer, json.dumps({key: "no answer"}).encode() + b"\n")
    os._exit(0)  # threads that still wait for an answer would keep us


if __name__ == "__main__":
    main()
