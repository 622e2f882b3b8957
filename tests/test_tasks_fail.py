# SPDX-License-Identifier: Apache-2.0
"""What fails beside the loop: it ends the agent, or is one line, and never a traceback."""

import asyncio
import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from aegis.tasks import TableLock, Tasks, stay_awake
from tests.pace import HUNG_S


def fail() -> NoReturn:
    raise OSError("no such luck")


def run(work: Callable[[asyncio.AbstractEventLoop], object]) -> tuple[Tasks, list[str], list[str]]:
    """What *work* came to: the tasks, how often they ended the agent, what was said."""
    ended: list[str] = []
    said: list[str] = []
    tasks = Tasks(lambda: ended.append("ended"), said.append)

    async def loop() -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(tasks.callback_failed)
        work(running)
        await asyncio.sleep(0.01)

    asyncio.run(loop())
    return tasks, ended, said


def test_a_callback_that_fails_ends_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    """The reader of the ring is one: without it the agent would be deaf."""
    tasks, ended, said = run(lambda loop: loop.call_soon(fail))
    assert (str(tasks.failure), ended, said) == ("no such luck", ["ended"], [])
    assert capsys.readouterr().err == ""


def test_what_is_nobodys_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As when a connection of the control socket breaks: it goes on."""
    context = {"message": "Unhandled exception in client_connected_cb", "exception": OSError("x")}
    tasks, ended, said = run(lambda loop: loop.call_exception_handler(context))
    assert (tasks.failure, ended) == (None, [])
    assert said == ["aegis: Unhandled exception in client_connected_cb: x ()"]
    assert capsys.readouterr().err == ""


async def sleep_soundly() -> None:
    """With threads to wait for, none of which can wake the loop."""
    stay_awake()
    await asyncio.to_thread(int)
    vars(asyncio.get_running_loop())["_write_to_self"] = bool
    await asyncio.to_thread(int)


def test_a_thread_that_cannot_wake_the_loop_is_noticed() -> None:
    """Also at the very end, when asyncio waits for the threads themselves."""
    ending = threading.Thread(target=asyncio.run, args=(sleep_soundly(),), daemon=True)
    ending.start()
    ending.join(HUNG_S)
    assert not ending.is_alive()


def test_a_lock_whose_holder_failed_at_once_is_free() -> None:
    """The agent's end takes it, too, and would wait for ever."""

    async def work() -> None:
        lock = TableLock()
        lock.begins = fail
        with pytest.raises(OSError, match="no such luck"):
            async with lock:
                with lock.writing():
                    raise AssertionError("written unseen")
        assert not lock.is_writing
        lock.begins, lock.ended = bool, fail
        with pytest.raises(OSError, match="no such luck"):
            async with lock:
                with lock.writing():
                    assert lock.is_writing
        assert not lock.is_writing
        async with asyncio.timeout(HUNG_S), lock:
            assert lock.locked()

    asyncio.run(work())
