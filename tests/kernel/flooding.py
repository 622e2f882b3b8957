# SPDX-License-Identifier: Apache-2.0
"""Connections in the background, as fast as they go."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.programs import Programs
from tests.kernel.settings import BURST


@contextmanager
def flooding(programs: Programs, program: Path, port: int, answers: list[str]) -> Iterator[None]:
    """While the block lasts *program* makes BURST UDP connects to *port*, again and again.

    Each run's answer is added to *answers*.
    """
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set() or not answers:
            command = ["flood", "127.0.0.1", str(port), str(BURST), "2"]
            answers.append(programs.run(program, *command).stdout)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
