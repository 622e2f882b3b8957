# SPDX-License-Identifier: Apache-2.0
"""The event log under rotation and on disks that are full, read-only or gone."""

import asyncio
import grp
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aegis.actions import log as log_module
from aegis.actions.log import EventLog, open_log
from tests.actions.told import Told
from tests.pace import HUNG_S, quickest

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=["a-shell-s-umask", "the-unit-s-umask"])
def test_new_log_is_for_root_and_adm_only(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "log" / "aegis" / "events.jsonl"
    log = EventLog(path)
    log.add('{"a":1}')
    before = os.umask(umask)
    try:
        log.flush()
    finally:
        os.umask(before)
    assert lines(path) == [{"a": 1}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    if os.geteuid() == 0:
        assert path.stat().st_gid == path.parent.stat().st_gid == grp.getgrnam("adm").gr_gid


def test_a_batch_is_one_write(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    log.add("{}")
    log.flush()
    for _ in range(1000):
        log.add('{"n":1}')
    before = write_calls()
    log.flush()
    assert write_calls() - before == 1
    assert log.written == 1001


def write_calls() -> int:
    """Count this thread's write(2) calls."""
    text = Path("/proc/thread-self/io").read_text()
    fields = dict(line.split(": ") for line in text.splitlines())
    return int(fields["syscw"])


@pytest.mark.parametrize("how", ["moved", "removed", "directory removed", "truncated"])
def test_log_goes_on_in_the_right_file_without_a_signal(tmp_path: Path, how: str) -> None:
    path = tmp_path / "aegis" / "events.jsonl"
    log = EventLog(path)
    log.add('{"n":1}')
    log.flush()
    old = path.rename(tmp_path / "old") if how == "moved" else None
    if how == "truncated":
        os.truncate(path, 0)
    elif how.endswith("removed"):
        path.unlink()
    if how.startswith("directory"):
        path.parent.rmdir()
    log.add('{"n":2}')
    log.flush()
    assert lines(path) == [{"n": 2}]
    if old:
        assert lines(old) == [{"n": 1}]


def test_torn_last_line_of_a_crashed_agent_costs_no_further_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"n":1}\n{"torn')
    log = EventLog(path)
    log.add('{"n":2}')
    log.flush()
    assert path.read_text() == '{"n":1}\n{"torn\n{"n":2}\n'


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_log_is_never_written_through_something_else(tmp_path: Path, kind: str) -> None:
    path, target, told = tmp_path / "log", tmp_path / "target", Told()
    target.write_text("")
    if kind == "symlink":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    log = EventLog(path, told)
    log.add("{}")
    log.flush()
    assert target.read_text() == ""
    assert told.kinds() == ["log-failed"] and str(path) in told.notices[0][1]
    path.rmdir() if kind == "directory" else path.unlink()
    log.flush(now=True)
    assert lines(path) == [{}] and told.kinds() == ["log-failed", "log-restored"]


def test_only_what_memory_cannot_keep_is_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "KEEP_BYTES", 100)
    path, told = tmp_path / "no" / "log", Told()
    path.parent.write_text("in the way")
    log = EventLog(path, told)
    for number in range(10, 35):
        log.add(f'{{"n":{number}}}')  # 9 bytes with the newline
        log.flush()
    assert log.lost == 14 and told.kinds() == ["log-failed"]
    path.parent.unlink()
    log.flush(now=True)
    assert lines(path) == [{"n": number} for number in range(10, 21)]  # the first ones
    assert told.notices[-1][2] == {"aegis": {"lost": 14}}


def test_writing_resumes_within_a_second(tmp_path: Path) -> None:
    async def scenario() -> float:
        path, told = Path(tempfile.mkdtemp(dir=tmp_path), "no", "log"), Told()
        path.parent.write_text("in the way")
        log = EventLog(path, told)
        task = asyncio.create_task(log.flush_forever())
        log.add("{}")
        log.flush()
        await asyncio.sleep(0.7)
        path.parent.unlink()
        start = time.monotonic()
        while not path.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        return time.monotonic() - start

    assert quickest(lambda: asyncio.run(scenario()), 1) < 1


FULL_DISK = """
import json, os, sys, time
from pathlib import Path
from aegis.actions.log import EventLog
told = []
path = Path(sys.argv[1]) / "events.jsonl"
log = EventLog(path, lambda kind, message, fields: told.append((kind, message, fields)))
ballast = path.with_name("ballast")
ballast.write_bytes(bytes(50_000))
for number in range(400):
    log.add(json.dumps({"n": number, "pad": "x" * 300}))
    if number % 10 == 9:
        log.flush()
        log.flush(now=True)
assert [kind for kind, _, _ in told] == ["log-failed"], told
assert "No space left on device" in told[0][1], told
assert path.read_bytes().endswith(b"\\n")
ballast.unlink()
os.system(f"mount -o remount,size=1M,ro {sys.argv[1]}")
log.flush(now=True)
assert log.error.errno == 30, log.error
os.system(f"mount -o remount,rw {sys.argv[1]}")
time.sleep(0.5)
log.flush()
read = [json.loads(line) for line in path.read_text().splitlines()]
assert [record["n"] for record in read] == list(range(400))
assert told[-1][0] == "log-restored" and told[-1][2] == {"aegis": {"lost": 0}}, told
print("fine")
"""


@needs_root
def test_full_and_read_only_disk_tear_and_lose_no_line(tmp_path: Path) -> None:
    """A tmpfs of 64 KiB in a mount namespace of its own, filled, freed, remounted."""
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$0" -c "$2" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable, str(tmp_path), FULL_DISK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


FILE_LIMIT = """
import json, resource, sys
from pathlib import Path
from aegis.actions.log import EventLog
path = Path(sys.argv[1])
log = EventLog(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(10):
    log.add(json.dumps({"n": number, "pad": "x" * 140}))
log.flush()
assert log.error.errno == 27, log.error
assert log.written == 6 and path.read_bytes().endswith(b"}\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.flush(now=True)
assert [json.loads(line)["n"] for line in path.open()] == list(range(10))
print("fine")
"""


def test_a_short_write_is_taken_back_to_whole_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(tmp_path / "log")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_close_counts_what_could_not_be_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path)  # a directory
    log.add("{}")
    log.close()
    assert (log.written, log.lost) == (0, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_log_that_is_there_gets_the_owner_and_mode_of_a_new_one(tmp_path: Path) -> None:
    """Whoever could read it before reads no more of it."""
    made, found = tmp_path / "made", tmp_path / "found"
    found.write_text('{"n":1}\n')
    found.chmod(0o666)
    os.chown(found, 65534, 65534)
    for path in (made, found):
        os.close(open_log(path))
    wanted, got = made.stat(), found.stat()
    assert (got.st_mode, got.st_uid, got.st_gid) == (wanted.st_mode, wanted.st_uid, wanted.st_gid)
    assert found.read_text() == '{"n":1}\n'
