# SPDX-License-Identifier: Apache-2.0
"""Standard output that nobody reads, that is gone, or that was never there."""

import errno
import os
import pty
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TextIO

import pytest

from aegis.cli import stream as stream_module
from aegis.cli.output import Output
from aegis.cli.stream import Stream
from tests.actions.told import Told

LINE = "x" * 99 + "\n"
KEEP = 10_000


class Pair:
    """What is written to, as a stream, and the descriptor of its reader."""

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self.reader, writer = os.pipe()
        elif kind == "terminal":
            self.reader, writer = pty.openpty()
        else:
            ours, theirs = socket.socketpair()
            self.reader, writer = theirs.detach(), ours.detach()
        self.kind = kind
        self.target: TextIO = os.fdopen(writer, "w")

    def read(self) -> bytes:
        """What is there."""
        os.set_blocking(self.reader, False)
        data = b""
        while True:
            try:
                block = os.read(self.reader, 1 << 16)
            except OSError:
                return data.replace(b"\r", b"")
            if not block:
                return data
            data += block


@pytest.fixture(params=["pipe", "socket", "terminal"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(stream_module, "KEEP_BYTES", KEEP)
    made = Pair(request.param)
    with ExitStack() as stack:
        stack.callback(os.close, made.reader)
        stack.callback(made.target.close)
        yield made


def fill(stream: Stream, lines: int = 10_000) -> None:
    for _ in range(lines):
        stream.write(LINE)
        stream.flush()


def test_an_unread_stream_blocks_nobody_and_what_is_lost_is_counted(pair: Pair) -> None:
    """A megabyte to who never reads; then all that was not lost comes, whole and in order."""
    stream = Stream(pair.target)
    begun = time.monotonic()
    fill(stream)
    assert time.monotonic() - begun < 5
    assert isinstance(stream.error, BlockingIOError) and not stream.is_gone
    assert 0 < stream.lost < 10_000
    data = b""
    while stream.error is not None:
        data += pair.read()
        stream.flush()
    data += pair.read()
    assert data == LINE.encode() * (10_000 - stream.lost)
    assert os.get_blocking(pair.target.fileno())  # whoever shares it finds it as it was


def test_where_it_cannot_be_opened_again_poll_says_what_fits(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's terminal, say."""
    monkeypatch.setattr(stream_module, "_open_again", lambda fd: -1)
    test_an_unread_stream_blocks_nobody_and_what_is_lost_is_counted(pair)


def test_a_reader_that_is_gone_is_an_error_and_no_exception(pair: Pair) -> None:
    stream = Stream(pair.target)
    kept = os.dup(pair.reader)
    os.close(pair.reader)
    os.close(kept)
    fill(stream, 3)
    assert stream.is_gone and stream.error is not None and stream.lost == 3
    pair.reader = os.open("/dev/null", os.O_RDONLY)


def test_what_fails_once_is_not_gone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line comes all the same: nobody else would say it."""
    failing = iter([OSError(errno.EIO, "no such luck")])
    write = Stream._write

    def fail_once(self: Stream, raw: bytes) -> int:
        for error in failing:
            raise error
        return write(self, raw)

    monkeypatch.setattr(Stream, "_write", fail_once)
    stream = Stream(pair.target)
    fill(stream, 3)
    assert (stream.is_gone, stream.error, stream.lost) == (False, None, 0)
    assert pair.read() == LINE.encode() * 3


def test_closed_before_we_began() -> None:
    """As with ``>&-``: Python has no ``sys.stdout`` then."""
    stream = Stream(None)
    fill(stream, 3)
    stream.close()
    assert stream.is_gone and stream.lost == 3 and not stream.isatty()


def test_the_end_waits_a_moment_and_not_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "END_S", 0.1)
    stream = Stream(pair.target)
    fill(stream)
    lost, begun = stream.lost, time.monotonic()
    stream.close()
    assert time.monotonic() - begun < 2 and stream.lost > lost


def test_it_is_told_once_and_once_when_it_is_read_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With how many lines were not shown, each time anew."""
    monkeypatch.setattr(sys, "stdout", pair.target)
    output, told = Output(as_json=True), Told()
    output.tell = told
    for _ in range(2):
        before = output.status()["lost"]
        for _ in range(10_000):
            output.line("x" * 99)
            output.flush()
        while output.status()["error"]:
            pair.read()
            output.flush()
        assert told.kinds() == ["output-stuck", "output-restored"]
        assert told.notices[1][2]["aegis"]["lost"] == output.status()["lost"] - before > 0
        told.notices.clear()
    assert capfd.readouterr().err.count("nobody reads standard output") == 2


def test_nobody_at_either_end_is_told_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    output, told = Output(as_json=False), Told()
    output.tell = told
    output.say("aegis: ready")
    output.line("{}")
    output.flush()
    output.flush()
    output.close()
    assert told.kinds() == ["output-gone", "output-gone"] and not output.wants_record()
    assert output.status()["lost"] >= 2
