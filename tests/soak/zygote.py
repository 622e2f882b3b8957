# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.soak.zygote FD LIBRARY``: all is imported once, then forked for each command.

What a command imports late is its own doing, and so is all that it does.
"""

import array
import ctypes
import json
import os
import socket
import sys

import aegis.agent
import aegis.cli.load
import aegis.cli.main
import aegis.cli.run
import aegis.cli.running
import aegis.cli.status
import aegis.cli.unload


def _become(request: dict[str, list[int]], fds: list[int], library: ctypes.CDLL) -> None:
    """In the child: standard streams of its own, and the plan of what is to fail."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    for number, target in ((nothing, 0), (fds[0], 1), (fds[1], 2)):
        os.dup2(number, target)
    plan = fds[2] if len(fds) > 2 else -1
    if plan >= 0:
        plan = os.dup2(plan, 100)
    os.closerange(3, 100)
    if plan >= 0:
        left_out = array.array("I", request["left_out"])
        place = (ctypes.c_uint32 * len(left_out)).from_buffer(left_out)
        code = library.aegis_soak_arm(plan, place, len(left_out))
        if code:
            raise OSError(-code, os.strerror(-code))


def serve(channel: socket.socket, library: ctypes.CDLL) -> list[str]:
    """The words of a command, in the child that is to carry it out."""
    while True:
        message, fds, _, _ = socket.recv_fds(channel, 65536, 4)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            channel.detach()
            _become(request, fds, library)
            return list(request["words"])
        for number in fds:
            os.close(number)
        channel.send(str(pid).encode())


if __name__ == "__main__":
    os.chdir("/")
    words = serve(socket.socket(fileno=int(sys.argv[1])), ctypes.CDLL(sys.argv[2]))
    sys.exit(aegis.cli.main.main(words))
