# SPDX-License-Identifier: Apache-2.0
"""Which hook scripts there are, and which may run as root."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.actions.script_file import find_script, list_scripts, open_script
from aegis.errors import ScriptError
from tests.actions.conftest import Write


def test_executable_files_are_listed_by_name_over_all_directories(tmp_path: Path) -> None:
    for name in ("b/10-log", "a/20-mail", "a/05-first"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o700)
    found = list_scripts([tmp_path / "a", tmp_path / "missing", str(tmp_path / "b")])
    assert [path.name for path in found] == ["05-first", "10-log", "20-mail"]


def test_leftovers_and_what_is_not_executable_are_no_scripts(tmp_path: Path) -> None:
    for name in (".hidden", "x~", "x.dpkg-new", "x.rpmsave", "README", "fine"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755 if name != "README" else 0o644)
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert [path.name for path in list_scripts([tmp_path])] == ["fine"]


def test_a_named_script_is_the_first_of_that_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "x").write_text("")
    dirs = [tmp_path / "a", tmp_path / "b"]
    assert find_script(dirs, "x") == tmp_path / "b" / "x"
    (tmp_path / "a" / "x").write_text("")
    assert find_script(dirs, "x") == tmp_path / "a" / "x"


@pytest.mark.parametrize("name", ["missing", "", ".", "..", "../x", "/bin/sh", "a/b", "\0"])
def test_a_name_that_is_no_script_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScriptError, match=r"not found in|not a file name"):
        find_script([tmp_path], name)


def test_a_safe_script_is_opened(write_script: Write) -> None:
    fd = open_script(write_script("hook", "#!/bin/sh\n"))
    assert os.read(fd, 100) == b"#!/bin/sh\n" and not os.get_inheritable(fd)
    os.close(fd)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def hard_link(path: Path) -> None:
    path.with_name("link").hardlink_to(path)


def replace_by_symlink(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o755)


def replace_parent_by_symlink(path: Path) -> None:
    parent = path.parent
    parent.rename(parent.with_name("real"))
    parent.symlink_to("real")


SPOIL: list[tuple[str, Callable[[Path], object], str]] = [
    ("owner", lambda path: os.chown(path, 1000, 0), "owned by uid 1000, not by root"),
    ("group-writable", lambda path: path.chmod(0o775), r"writable by its group \(mode 0775\)"),
    ("world-writable", lambda path: path.chmod(0o757), r"writable by others \(mode 0757\)"),
    ("not-executable", lambda path: path.chmod(0o644), r"not executable \(mode 0644\)"),
    ("hard-link", hard_link, "has 2 hard links"),
    ("symlink", replace_by_symlink, "is a symbolic link"),
    ("fifo", replace_by_fifo, "not a regular file"),
    ("vanished", Path.unlink, "No such file"),
    ("parent-owner", lambda path: os.chown(path.parent, 1000, 0), "in is owned by uid 1000"),
    ("parent-writable", lambda path: path.parent.chmod(0o1777), r"in is writable .*1777"),
    ("above-writable", lambda path: path.parent.parent.chmod(0o770), r"writable .*0770"),
    ("parent-symlink", replace_parent_by_symlink, "in is a symbolic link"),
]


@pytest.mark.parametrize(("spoil", "reason"), [p[1:] for p in SPOIL], ids=[p[0] for p in SPOIL])
def test_what_somebody_else_could_have_changed_is_refused(
    script_dir: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    script = script_dir / "in" / "hook"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.close(open_script(script))
    spoil(script)
    before = open_descriptors()
    with pytest.raises(ScriptError, match=reason):
        open_script(script)
    assert open_descriptors() == before


@pytest.mark.parametrize("path", ["hook", "/run/../run/hook"])
def test_only_an_absolute_path_without_detours_is_opened(path: str) -> None:
    with pytest.raises(ScriptError, match="not an absolute path"):
        open_script(Path(path))
