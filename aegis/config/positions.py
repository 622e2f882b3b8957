# SPDX-License-Identifier: Apache-2.0
"""Where each key and array element of a TOML text stands: tomli does not say.

Only for text tomli has accepted: a scanner that trusts its input can be short.
Nodes form a tree rather than a map of paths, so deep nesting costs no more.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable

import tomli

# No possessive quantifiers: Python 3.11.2 (Debian 12) gets them wrong (gh-106052).
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[A-Za-z0-9_-]+')
_SCALAR = re.compile(
    r'"""(?:[^"\\]+|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']+|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|[^,\]}#\r\n]+",  # numbers, booleans, dates (which may hold a space)
    re.DOTALL,
)

# What most lists are made of, each with its comma: read in one step.
_PLAIN = re.compile(r'[ \t\r\n]*("[^"\\\r\n]*")[ \t\r\n]*,')

Step = str | int


class _Node:
    """A key or element at *offset*; *tables* counts the ``[[...]]`` seen of this key."""

    __slots__ = ("children", "offset", "tables")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.children: dict[Step, _Node] = _CHILDLESS
        self.tables = 0

    def child(self, step: Step, offset: int) -> "_Node":
        node = self.children.get(step)
        if node is None:
            if self.children is _CHILDLESS:
                self.children = {}
            node = self.children[step] = _Node(offset)
        return node


_CHILDLESS: dict[Step, _Node] = {}  # one for all: a policy may have 65,536 entries


class Positions:
    """Line and column, from 1, of every key and array element of *text*."""

    def __init__(self, text: str) -> None:
        self._root = _Scanner(text).scan()
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def of(self, *path: Step) -> tuple[int, int]:
        """The place of *path*, or of the nearest thing around it that was written."""
        return self._place(self._nearest(path))

    def of_elements(self, path: tuple[Step, ...], count: int) -> list[tuple[int, int]]:
        """``of(*path, n)`` for each n below *count*, in a fraction of the time."""
        array = self._nearest(path)
        get = array.children.get
        return [self._place(get(n, array)) for n in range(count)]

    def _nearest(self, path: Iterable[Step]) -> _Node:
        node = self._root
        for step in path:
            if (inner := node.children.get(step)) is None:
                break
            node = inner
        return node

    def _place(self, node: _Node) -> tuple[int, int]:
        line = bisect_right(self._starts, node.offset)
        return line, node.offset - self._starts[line - 1] + 1

    def paths(self) -> list[tuple[Step, ...]]:
        """Every path that has a place."""
        found: list[tuple[Step, ...]] = []
        waiting: list[tuple[tuple[Step, ...], _Node]] = [((), self._root)]
        while waiting:
            path, node = waiting.pop()
            for step, inner in node.children.items():
                found.append((*path, step))
                waiting.append((found[-1], inner))
        return found


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._root = _Node(0)

    def scan(self) -> _Node:
        table = self._root
        while self._peek():
            if self._peek() == "[":
                table = self._header()
            else:
                self._value(self._key(table))
        return self._root

    def _peek(self) -> str:
        """The next character that means something; empty at the end."""
        if match := _BLANK.match(self._text, self._at):
            self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _header(self) -> _Node:
        start = self._at
        array = self._text.startswith("[[", start)
        self._at += 2 if array else 1
        node = self._key(self._root)
        if array:
            node.tables += 1
            node = node.child(node.tables - 1, start)
        self._at += 2 if array else 1
        return node

    def _key(self, node: _Node) -> _Node:
        """Read a dotted key below *node*; stop after it and its ``=``, or at ``]``."""
        while True:
            self._peek()
            offset = self._at
            if node.tables:  # a key below an array of tables is below its last one
                node = node.children[node.tables - 1]
            node = node.child(self._key_part(), offset)
            follows = self._peek()
            if follows != "]":
                self._at += 1
            if follows != ".":
                return node

    def _key_part(self) -> str:
        match = _KEY.match(self._text, self._at)
        if match is None:  # tomli accepted it, so this scanner is wrong
            raise AssertionError(f"no key at offset {self._at}")
        self._at = match.end()
        token = match[0]
        if token[0] == '"' and "\\" in token:
            return str(tomli.loads(f"key = {token}")["key"])
        return token[1:-1] if token[0] in "\"'" else token

    def _value(self, node: _Node | None) -> None:
        """Read a value, and all that is in it; no recursion, whatever the nesting."""
        open_: list[tuple[_Node, bool]] = []
        while node is not None:
            character = self._peek()
            if character in ("[", "{"):
                self._at += 1
                open_.append((node, character == "["))
                if character == "[":
                    self._plain_strings(node)
            elif match := _SCALAR.match(self._text, self._at):
                self._at = match.end()
            node = self._next(open_)

    def _plain_strings(self, array: _Node) -> None:
        while match := _PLAIN.match(self._text, self._at):
            array.child(len(array.children), match.start(1))
            self._at = match.end()

    def _next(self, open_: list[tuple[_Node, bool]]) -> _Node | None:
        """The node of the next value in what is still open."""
        while open_:
            character = self._peek()
            if not character:
                raise AssertionError("the text ends inside a value")
            if character in ",]}":
                self._at += 1
                if character != ",":
                    open_.pop()
                continue
            node, array = open_[-1]
            return node.child(len(node.children), self._at) if array else self._key(node)
        return None
