# SPDX-License-Identifier: Apache-2.0
"""Root, but not Aegis: a fork of this process that does one thing and says how it went.

It executes nothing, or it would count as started by whoever started the agent.
"""

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import traceback
from collections.abc import Callable

from aegis._bpf import lib
from aegis.bpf.object import open_map
from aegis.errors import KernelError

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBERS = {
    "x86_64": {"bpf": 321, "process_vm_writev": 311, "pidfd_getfd": 438, "tgkill": 234},
    "aarch64": {"bpf": 280, "process_vm_writev": 271, "pidfd_getfd": 438, "tgkill": 131},
}[os.uname().machine]
GET_NEXT_ID = {"map": 12, "program": 11, "link": 31}
GET_FD_BY_ID = {"map": 14, "program": 13, "link": 30}
_STRANGE = 250  # no errno: the deed failed as it must not


def stranger(deed: Callable[[], object]) -> int:
    """The errno that *deed* got; 0: it was done."""
    child = os.fork()
    if child == 0:
        os._exit(_outcome(deed))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _outcome(deed: Callable[[], object]) -> int:
    try:
        deed()
    except OSError as error:
        traceback.print_exc()
        return error.errno or _STRANGE
    except KernelError as error:
        traceback.print_exc()
        return errno.EPERM if os.strerror(errno.EPERM) in str(error) else _STRANGE
    except BaseException:  # a fork must not go on with the test
        traceback.print_exc()
        return _STRANGE
    return 0


def _call(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def checked(result: int) -> int:
    """Of our shim."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    return _call(_libc.syscall(_NUMBERS["bpf"], command, buffer, 128)), buffer.raw


def make_map() -> int:
    """A hash of four bytes to four, with one entry more than none and one less than before."""
    fd, _ = _bpf(0, struct.pack("=5I", 1, 4, 4, 8, 0))
    checked(lib.aegis_map_fill(fd, b"abcd", 4, b"efgh", 4, 1, 0))
    checked(lib.aegis_map_clear(fd, b"abcd", 4, 1))
    return fd


def map_number(fd: int) -> int:
    return checked(lib.aegis_map_number(fd))


def first_entry(fd: int, name: str) -> tuple[bytes, bytes]:
    return next(open_map(name, fd).items())


def fill(fd: int, key: bytes, value: bytes) -> None:
    checked(lib.aegis_map_fill(fd, key, len(key), value, len(value), 1, 0))


def clear(fd: int, key: bytes, _value: bytes) -> None:
    checked(lib.aegis_map_clear(fd, key, len(key), 1))


def by_number(kind: str, number: int) -> int:
    """A descriptor of an object of the kernel's, whosever it is."""
    return _bpf(GET_FD_BY_ID[kind], struct.pack("=I", number))[0]


def numbers(kind: str) -> list[int]:
    """Of all there are."""
    found = [0]
    while True:
        try:
            _, answer = _bpf(GET_NEXT_ID[kind], struct.pack("=I", found[-1]))
        except FileNotFoundError:
            return found[1:]
        found.append(struct.unpack_from("=I", answer, 4)[0])


def signal_thread(pid: int, number: int) -> None:
    _call(_libc.syscall(_NUMBERS["tgkill"], pid, pid, number))


def attach(pid: int) -> None:
    """As a debugger does, which lets go at once."""
    _call(_libc.ptrace(16, pid, None, None))
    os.waitpid(pid, 0)
    _call(_libc.ptrace(17, pid, None, None))


def write_memory(pid: int, address: int) -> None:
    """One byte, of another process."""
    byte = ctypes.create_string_buffer(b"x")
    mine = (ctypes.c_size_t * 2)(ctypes.addressof(byte), 1)
    theirs = (ctypes.c_size_t * 2)(address, 1)
    _call(_libc.syscall(_NUMBERS["process_vm_writev"], pid, mine, 1, theirs, 1, 0))


def take_fd(pid: int, fd: int) -> int:
    return _call(_libc.syscall(_NUMBERS["pidfd_getfd"], os.pidfd_open(pid), fd, 0))


def signal_by_file(pid: int, number: int) -> None:
    """Have *pid* be sent *number* when a pipe becomes readable."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reading, 10, number)  # F_SETSIG
    flags = fcntl.fcntl(reading, fcntl.F_GETFL)
    fcntl.fcntl(reading, fcntl.F_SETFL, flags | os.O_ASYNC)
    os.write(writing, b".")


def limit_time(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))


def signal_by_pidfd(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)


def mount(device: str, target: str, kind: str | None, flags: int = 0) -> None:
    names = (device.encode(), target.encode(), kind.encode() if kind else None)
    _call(_libc.mount(*names, ctypes.c_ulong(flags), None))


def umount(target: str, flags: int = 0) -> None:
    _call(_libc.umount2(target.encode(), flags))
