# SPDX-License-Identifier: Apache-2.0
"""The control socket and the lock: one agent an instance, and only root commands it."""

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis import control, control_server
from aegis.errors import ControlError
from tests.folders import open_to_all
from tests.pace import HUNG_S


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control, "RUN", tmp_path / "run")
    return tmp_path / "run"


async def handle(request: control_server.Request) -> dict[str, Any]:
    if request["do"] == "fail":
        raise ControlError("no such thing")
    return {"did": request["do"]}


def converse(client: Callable[[], Any]) -> Any:
    """What *client* returns, run in a thread beside a server."""

    async def both() -> Any:
        server = await control_server.serve("test", handle)
        try:
            return await asyncio.to_thread(client)
        finally:
            server.close()

    with control.only_one("test"):
        return asyncio.run(both())


def leave_files(run_folder: Path, instance: str) -> list[Path]:
    """As an agent that was killed."""
    left = [run_folder / f"{instance}.lock", run_folder / f"{instance}.sock"]
    run_folder.mkdir(exist_ok=True)
    for path in left:
        path.touch()
    return left


def test_files_of_a_killed_agent_go_and_of_a_running_one_stay(run_folder: Path) -> None:
    """An instance whose cgroup is gone never comes again: whoever starts next cleans up."""
    stale = leave_files(run_folder, "killed")
    with control.only_one("running"):
        socket_file = control.socket_path("running")
        socket_file.touch()
        with control.only_one("test"):
            assert not any(path.exists() for path in stale)
            assert control.running() == ["running", "test"]
            assert socket_file.exists()
        stale = leave_files(run_folder, "killed")
        control.remove_stale()
        assert not any(path.exists() for path in stale)
        assert control.running() == ["running"]


def test_a_failed_start_leaves_no_lock(run_folder: Path) -> None:
    """Also when it ends by an exception."""
    with pytest.raises(ControlError), control.only_one("test"):
        raise ControlError("no")
    assert not list(run_folder.iterdir())


def test_a_request_is_answered() -> None:
    """One JSON line each way."""
    assert converse(lambda: control.ask("test", "reload")) == {"did": "reload"}


def test_a_refusal_reaches_the_asker_as_its_own_words() -> None:
    """The agent's error, not "failed"."""
    with pytest.raises(ControlError, match=r"^no such thing$"):
        converse(lambda: control.ask("test", "fail"))


def test_nobody_there_is_said() -> None:
    """And not a traceback about a socket."""
    with pytest.raises(ControlError, match="no agent is running for test"):
        control.ask("test", "status")


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{}\n", b'{"do"\n', b"\xff\n", b"x" * 70000])
def test_what_is_no_request_is_answered_so(line: bytes) -> None:
    """Nothing a client sends ends the server."""

    def client() -> bytes:
        with socket.socket(socket.AF_UNIX) as plug:
            plug.connect(str(control.socket_path("test")))
            plug.sendall(line)
            plug.shutdown(socket.SHUT_WR)
            return plug.recv(4096)

    assert b'"ok": false' in converse(client)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_may_not_command_the_agent(run_folder: Path) -> None:
    """Even one who reached the socket: the kernel says who he is."""

    open_to_all(run_folder.parent)
    assert b"only root" in converse(lambda: ask_as_nobody(run_folder))


def ask_as_nobody(run_folder: Path) -> bytes:
    """Ask from a process of uid 65534, with the folder opened to it on purpose."""
    run_folder.chmod(0o755)
    (run_folder / "test.sock").chmod(0o666)
    queue: multiprocessing.Queue[bytes] = multiprocessing.Queue()

    def work() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as plug:
            plug.connect(str(run_folder / "test.sock"))
            plug.sendall(b'{"do": "stop"}\n')
            queue.put(plug.recv(4096))

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(HUNG_S)
    return queue.get(timeout=HUNG_S)


def test_a_second_agent_of_an_instance_is_refused() -> None:
    """Two would fight over the pins."""
    with control.only_one("test"):
        assert control.running() == ["test"]
        with control.only_one("other"):
            assert control.running() == ["other", "test"]
        with pytest.raises(ControlError, match="already runs for test"), control.only_one("test"):
            pass
    assert control.running() == []
    with control.only_one("test"):
        pass
