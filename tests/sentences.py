# SPDX-License-Identifier: Apache-2.0
"""The contract cut into sentences, and the table that says which test shows each.

A sentence is a sentence, a clause after a semicolon, a table row or a line of
an example: whatever an administrator could hold us to by itself.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tomli

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = ROOT.parent / "shared" / "policy-language.md"
SHIPPED = ROOT / "docs" / "policy-language.md"
TABLE = ROOT / "tests" / "sentences.toml"

_ITEM = re.compile(r"(?:\*|\d+\.) ")
_RULER = re.compile(r"\|[-|]+\|")


@dataclass(frozen=True)
class Sentence:
    """One row of the table. *issue*: who carries out what no test shows yet."""

    says: str
    shown_by: tuple[str, ...] = ()
    issue: int | None = None


def read_table(path: Path = TABLE) -> tuple[Sentence, ...]:
    rows = tomli.loads(path.read_text())["sentence"]
    return tuple(Sentence(r["says"], tuple(r.get("shown_by", ())), r.get("issue")) for r in rows)


def sentences(text: str) -> list[str]:
    """Every sentence of the Markdown *text*, in order, blanks made single."""
    return [sentence for block in _blocks(text) for sentence in _split(block)]


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs and list items whole; rows and lines of examples each by itself.

    The last ones are given in backquotes, in which nothing is split.
    """
    gathered: list[str] = []
    example = False
    for line in [*map(str.strip, text.splitlines()), ""]:
        fence = line.startswith("```")
        alone = example or line.startswith("|")
        if fence or alone or not line or line.startswith("#") or _ITEM.match(line):
            if gathered:
                yield " ".join(gathered)
            gathered = []
        if fence:
            example = not example
        elif alone:
            if line and not _RULER.fullmatch(line):
                yield f"\0{line}"
        elif line and not line.startswith("#"):
            gathered.append(_ITEM.sub("", line, count=1) if _ITEM.match(line) else line)


def _split(block: str) -> Iterator[str]:
    """Cut after ``.`` and ``;``, but not inside brackets, quotes or code."""
    words = block.removeprefix("\0").split()
    if block.startswith("\0"):
        yield " ".join(words)
        return
    said: list[str] = []
    for word in words:
        said.append(word)
        sofar = " ".join(said)
        whole = sofar.count("(") <= sofar.count(")") and sofar.count("`") % 2 == 0
        if whole and re.search(r"[.;]\)?$", word):
            yield sofar
            said = []
    if said:
        yield " ".join(said)


def find_test(node: str, root: Path = ROOT) -> str | None:
    """Why the test *node* (``FILE::NAME`` or ``FILE::NAME[ID]``) is not there; None: it is."""
    file, _, name = node.partition("::")
    path = root / file
    if not path.is_file():
        return f"{file} is not there"
    tree = ast.parse(path.read_text())
    name, _, parameter = name.removesuffix("]").partition("[")
    tests = {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
    if not name.startswith("test_") or name not in tests:
        return f"{file} has no {name}"
    texts = {item.value for item in ast.walk(tree) if isinstance(item, ast.Constant)}
    if parameter and parameter not in texts:
        return f"{file} does not mention {parameter!r}"
    return None
