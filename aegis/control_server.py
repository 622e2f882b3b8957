# SPDX-License-Identifier: Apache-2.0
"""The agent's end of the control socket; what is said there: ``control``."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aegis.control import socket_path
from aegis.errors import AegisError

LINE_MAX = 65536

Request = Mapping[str, Any]
Handler = Callable[[Request], Awaitable[dict[str, Any]]]


async def serve(instance: str, handle: Handler) -> asyncio.Server:
    """Answer requests of root until the returned server is closed."""
    path = socket_path(instance)
    path.unlink(missing_ok=True)  # ours to remove: the caller holds the lock

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            reply = await _answer(reader, writer, handle)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(converse, path, limit=LINE_MAX)
    path.chmod(0o600)
    return server


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler
) -> dict[str, Any]:
    try:
        async with asyncio.timeout(5):
            line = await reader.readline()
        if _peer_uid(writer) != 0:
            return {"ok": False, "error": "only root may control the agent"}
        request = json.loads(line)
        if not isinstance(request["do"], str):
            raise TypeError("do")
        return {"ok": True, **await handle(request)}
    except AegisError as error:
        return {"ok": False, "error": str(error)}
    except (ValueError, TypeError, KeyError, TimeoutError):
        return {"ok": False, "error": "not a request"}


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket")
    size = struct.calcsize("3i")  # struct ucred: pid, uid, gid
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
