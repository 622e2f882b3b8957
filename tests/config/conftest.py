# SPDX-License-Identifier: Apache-2.0
"""A directory that stands for /etc, with a main file and drop-ins."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from aegis.config.load import Loaded, load_lone, load_policy
from aegis.config.problem import PolicyError


@dataclass(frozen=True)
class Etc:
    """*top*/aegis.toml, which names *top*/aegis.d and *top*/scripts."""

    top: Path

    @property
    def main_file(self) -> Path:
        return self.top / "aegis.toml"

    @property
    def drop_ins(self) -> Path:
        return self.top / "aegis.d"

    def main(self, text: str = "", **settings: str) -> None:
        """Write the main file: [global] with the directories and *settings*, then *text*."""
        lines = [f'include_dirs = ["{self.drop_ins}"]', f'script_dirs = ["{self.top / "scripts"}"]']
        lines += [f"{key} = {value}" for key, value in settings.items()]
        self.main_file.write_text("[global]\n" + "\n".join(lines) + "\n" + text)

    def drop_in(self, name: str, text: str) -> Path:
        path = self.drop_ins / name
        path.write_text(text)
        return path

    def load(self) -> Loaded:
        """The policy of all files, whoever owns them (ownership has its own test file)."""
        return load_policy(self.main_file, check_trust=False)

    def errors(self) -> list[str]:
        """What is wrong, as ``file:line:column: key: message`` with bare file names."""
        with pytest.raises(PolicyError) as caught:
            self.load()
        return [self.bare(str(problem)) for problem in caught.value.problems]

    def warnings(self) -> list[str]:
        return [self.bare(str(problem)) for problem in self.load().warnings]

    def bare(self, text: str) -> str:
        return text.replace(f"{self.drop_ins}/", "").replace(f"{self.top}/", "")

    def lone(self, text: str, name: str = "lone.toml") -> Loaded:
        path = self.top / name
        path.write_text(text)
        return load_lone(path)

    def lone_errors(self, text: str, name: str = "lone.toml") -> list[str]:
        with pytest.raises(PolicyError) as caught:
            self.lone(text, name)
        return [self.bare(str(problem)) for problem in caught.value.problems]


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    (tmp_path / "aegis.d").mkdir()
    (tmp_path / "scripts").mkdir()
    made = Etc(tmp_path)
    made.main()
    return made
