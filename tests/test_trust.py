# SPDX-License-Identifier: Apache-2.0
"""Config files, and every directory above, are root's and nobody else may write them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.config.load import load_policy
from aegis.config.problem import PolicyError
from aegis.trust import FILE_BYTES, Trust, TrustError, read_any


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """We ourselves in the place of root, and the test's directory in that of ``/``."""
    return Trust(os.geteuid(), str(tmp_path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    path = directory / "a.toml"
    path.write_text("x = 1")
    path.chmod(0o644)
    return path


def test_a_file_of_the_owner_is_read(trust: Trust, file: Path) -> None:
    assert trust.read(str(file)) == b"x = 1"
    assert trust.names(str(file.parent)) == ["a.toml"]


@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o646, "others"), (0o666, "oth")])
def test_a_file_others_may_write(trust: Trust, file: Path, mode: int, who: str) -> None:
    """The error names the path and its mode."""
    file.chmod(mode)
    with pytest.raises(TrustError, match=rf"{file} is writable by {who}.*\(mode {mode:04o}\)"):
        trust.read(str(file))


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_a_directory_others_may_write(trust: Trust, file: Path, mode: int) -> None:
    """They could put another file in its place: nothing in it is used."""
    file.parent.chmod(mode)
    with pytest.raises(TrustError, match=rf"{file.parent} is writable.*\(mode {mode:04o}\)"):
        trust.read(str(file))
    with pytest.raises(TrustError, match=rf"{file.parent} is writable"):
        trust.names(str(file.parent))


def test_a_directory_further_up(trust: Trust, file: Path) -> None:
    """Every directory above is looked at, also the topmost."""
    Path(trust.top).chmod(0o777)
    with pytest.raises(TrustError, match=f"{trust.top} is writable by others"):
        trust.read(str(file))


def test_a_file_of_somebody_else(trust: Trust, file: Path) -> None:
    stranger = Trust(trust.owner + 1, trust.top)
    with pytest.raises(TrustError, match=f"is owned by uid {trust.owner}, not by"):
        stranger.read(str(file))


def test_a_symlink_in_the_place_of_the_file(trust: Trust, file: Path) -> None:
    link = file.parent / "b.toml"
    link.symlink_to(file)
    with pytest.raises(TrustError, match=f"{link} is a symbolic link"):
        trust.read(str(link))


def test_a_symlink_in_the_place_of_a_directory(trust: Trust, file: Path) -> None:
    link = file.parent.parent / "link"
    link.symlink_to(file.parent)
    with pytest.raises(TrustError, match=f"{link} is a symbolic link"):
        trust.read(str(link / file.name))
    with pytest.raises(TrustError, match=f"{link} is a symbolic link"):
        trust.names(str(link))


def test_a_second_hard_link(trust: Trust, file: Path) -> None:
    (file.parent / "other").hardlink_to(file)
    with pytest.raises(TrustError, match="has 2 hard links, not one"):
        trust.read(str(file))


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_regular_file(trust: Trust, file: Path, kind: str) -> None:
    """A FIFO in its place does not hang the agent."""
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file, 0o644)
    else:
        file.mkdir(0o755)
    for read in (trust.read, read_any):
        with pytest.raises(TrustError, match=r"is (not a regular file|a directory) \(mode"):
            read(str(file))


def test_a_file_at_the_limit_and_one_byte_over(trust: Trust, file: Path) -> None:
    file.write_bytes(b"#" * FILE_BYTES)
    assert len(trust.read(str(file))) == FILE_BYTES
    file.write_bytes(b"#" * (FILE_BYTES + 1))
    for read in (trust.read, read_any):
        with pytest.raises(TrustError, match="larger than 4 MiB"):
            read(str(file))


def test_a_missing_file_is_no_question_of_trust(trust: Trust, file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        trust.read(str(file.parent / "none"))
    with pytest.raises(NotADirectoryError):
        trust.names(str(file))


def test_reading_any_file_follows_links(file: Path) -> None:
    """``aegis check FILE`` takes a file from wherever it lies."""
    link = file.parent / "link"
    link.symlink_to(file)
    link.chmod(0o666)
    assert read_any(str(link)) == b"x = 1"


@pytest.fixture
def roots() -> Iterator[Path]:
    """A directory that is root's all the way up: /tmp is not."""
    if os.geteuid() != 0:
        pytest.skip("only root can make root's files")
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        yield Path(directory)


def test_a_policy_of_root_is_loaded_by_default(roots: Path) -> None:
    """The checks hold from ``/`` down, for main file and drop-ins alike."""
    main, directory = roots / "aegis.toml", roots / "d"
    directory.mkdir()
    main.write_text(f'[global]\ninclude_dirs = ["{directory}"]\n')
    drop_in = directory / "nc.toml"
    drop_in.write_text("[[app]]\n")
    assert load_policy(main).files == (str(main), str(drop_in))


@pytest.mark.parametrize("at_fault", ["aegis.toml", "d", "d/nc.toml"])
def test_a_policy_somebody_else_may_write_is_not_loaded(roots: Path, at_fault: str) -> None:
    """Nothing of it is used, and the error names the path and the mode."""
    main, directory = roots / "aegis.toml", roots / "d"
    directory.mkdir()
    main.write_text(f'[global]\ninclude_dirs = ["{directory}"]\n')
    (directory / "nc.toml").write_text("[[app]]\n")
    (roots / at_fault).chmod(0o777)
    with pytest.raises(PolicyError, match=rf"{roots / at_fault} is writable by others \(mode 0777"):
        load_policy(main)
    assert load_policy(main, check_trust=False).policy.rules


def test_a_relative_path_is_taken_from_the_working_directory(
    roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``-c aegis.toml`` is checked like its full path, which events then name."""
    (roots / "aegis.toml").write_text("")
    monkeypatch.chdir(roots)
    assert load_policy(Path("aegis.toml")).files == (str(roots / "aegis.toml"),)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_private_file_is_nobody_else_s_to_read(trust: Trust, file: Path, mode: int) -> None:
    """What holds a secret is refused when it is none any more; its mode is named."""
    file.chmod(mode)
    with pytest.raises(TrustError, match=rf"{file} is open to others \(mode {mode:04o}\)"):
        trust.read(str(file), private=True)
    assert trust.read(str(file)) == b"x = 1"
    file.chmod(0o600)
    assert trust.read(str(file), private=True) == b"x = 1"
