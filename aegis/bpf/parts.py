# SPDX-License-Identifier: Apache-2.0
"""The main object's programs, checked by the kernel in parts, on several processors at once.

The verifier takes most of a start and works on one program at a time. So its larger programs are
loaded by objects of their own, opened from the same file, which share all maps of the main one:
what comes of it are the very programs that one object would have loaded.
"""

import os
import threading
from collections.abc import Collection

from aegis._bpf import lib
from aegis.bpf import memory
from aegis.bpf.maps import check
from aegis.bpf.programs import Programs

# Each takes 20 ms or more; the two parts take about as long.
PARTS = (
    ("aegis_connect4", "aegis_sendmsg4", "aegis_recvmsg4", "aegis_bind4", "aegis_socket",
     "aegis_exec"),
    ("aegis_connect6", "aegis_sendmsg6", "aegis_recvmsg6", "aegis_bind6", "aegis_ingress",
     "aegis_sockops", "aegis_exec_again"),
)  # fmt: skip


def load(main: Programs) -> dict[str, int]:
    """Load *main*; return what was loaded beside it, by name: the caller closes it.

    All at once, one after the other, where there is little memory: what a check takes is ours; and
    where there is one processor.

    :raises KernelError: with libbpf's and the verifier's own words.
    """
    if not memory.is_ample() or len(os.sched_getaffinity(0)) == 1:
        main.load()
        return {}
    for name in (name for part in PARTS for name in part):
        _skip(main, name)
    main.load()
    first, *others = [_Part(main, names) for names in PARTS]
    threads = [thread for part in others if (thread := _begin(part)) is not None]
    first.load()
    for thread in threads:
        thread.join()
    parts = (first, *others)
    error = next((part.error for part in parts if part.error is not None), None)
    if error is None:
        return {name: fd for part in parts for name, fd in part.found.items()}
    for fd in (fd for part in parts for fd in part.found.values()):
        os.close(fd)
    raise error


class _Part:
    """Some programs of *main*, which is loaded."""

    def __init__(self, main: Programs, names: Collection[str]) -> None:
        self.found: dict[str, int] = {}
        self.error: Exception | None = None
        self._main = main
        self._names = names

    def load(self) -> None:
        try:
            self._load()
        except Exception as error:
            self.error = error

    def _load(self) -> None:
        programs = Programs(self._main.name)
        try:
            for name in programs.program_names():
                if name not in self._names:
                    _skip(programs, name)
            programs.share(self._main)
            for name in programs.constants():
                fd = self._main.map_fd(name)
                check(lib.aegis_reuse_map(programs.handle, name.encode(), fd), f"sharing {name}")
            programs.load()
            for name in self._names:
                self.found[name] = os.dup(programs.program_fd(name))
        finally:
            programs.close()


def _begin(part: _Part) -> threading.Thread | None:
    """On a thread, or here where there is none to be had."""
    thread = threading.Thread(target=part.load, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        part.load()
        return None
    return thread


def _skip(programs: Programs, name: str) -> None:
    check(lib.aegis_skip_program(programs.handle, name.encode()), f"leaving {name} out")
