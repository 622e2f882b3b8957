# SPDX-License-Identifier: Apache-2.0
"""Random TOML, written while noting where each key and element was put."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

Path = tuple[str | int, ...]

BARE = st.text("abz09_-", min_size=1, max_size=4)
QUOTED = st.sampled_from(["a.b", "", " ", "#", "é", "]", "=", "'q'", "x\ty"])
BLANK = st.sampled_from(["", " ", "\t", "  "])
SCALAR = st.sampled_from(
    [
        "1",
        "-0.5e3",
        "true",
        "inf",
        "0xff",
        "1979-05-27",
        "1979-05-27 07:32:00Z",
        "07:32:00",
        '""',
        '"a # b"',
        '"\\" ] }"',
        "''",
        "'\\'",
        "'# \"'",
        '"""\nx = 1\n[[y]]\n"""',
        '"""a""b\\""""""',
        '""""""""',
        "'''\n''it's'''''",
        '"""\\\n   a\\\\"""',
        '"[[no]] = 1"',
    ]
)


@dataclass
class Writer:
    """Text so far, and the offset at which each path was written."""

    draw: st.DrawFn
    newline: str
    text: str = ""
    places: dict[Path, int] = field(default_factory=dict)

    def put(self, text: str) -> None:
        self.text += text.replace("\n", self.newline)

    def blank(self) -> None:
        self.put(self.draw(BLANK))

    def lines(self) -> None:
        """Blank, comments and newlines, as allowed between array elements."""
        self.put(self.draw(st.sampled_from(["", " ", "\n", " # ]} \n", "\n\t#\n\n"])))

    def end(self) -> None:
        self.put(self.draw(st.sampled_from(["\n", " \n", "# c = 1\n", " # [x]\n\n"])))

    def name(self, taken: set[str]) -> str:
        return self.draw((BARE | QUOTED).filter(lambda name: name not in taken))

    def key(self, base: Path, *names: str) -> Path:
        """A dotted key below *base*; notes each part that is new."""
        for number, name in enumerate(names):
            if number:
                self.blank()
                self.put(".")
                self.blank()
            base = (*base, name)
            self.places.setdefault(base, len(self.text))
            self.text += self._spell(name)
        return base

    def _spell(self, name: str) -> str:
        spellings = ['"' + name.replace("\t", "\\t") + '"']
        if name and set(name) <= set("abz09_-"):
            spellings.append(name)
        if "'" not in name:
            spellings.append(f"'{name}'")
        if name == "é":
            spellings.append('"\\u00e9"')
        return self.draw(st.sampled_from(spellings))

    def assign(self, base: Path, taken: set[str], depth: int) -> None:
        name = self.name(taken)
        taken.add(name)
        dotted = self.draw(st.booleans())
        path = self.key(base, name, *(["d"] if dotted else []))
        self.blank()
        self.put("=")
        self.blank()
        self.value(path, depth)

    def value(self, path: Path, depth: int) -> None:
        kind = self.draw(st.sampled_from(["scalar", "scalar", "array", "table"]))
        if kind == "scalar" or depth == 0:
            self.put(self.draw(SCALAR))
        elif kind == "array":
            self.array(path, depth - 1)
        else:
            self.inline(path, depth - 1)

    def array(self, path: Path, depth: int) -> None:
        self.put("[")
        size = self.draw(st.integers(0, 3))
        for index in range(size):
            self.lines()
            self.places[(*path, index)] = len(self.text)
            self.value((*path, index), depth)
            self.lines()
            if index < size - 1 or self.draw(st.booleans()):
                self.put(",")
        self.lines()
        self.put("]")

    def inline(self, path: Path, depth: int) -> None:
        self.put("{")
        taken: set[str] = set()
        for index in range(self.draw(st.integers(0, 2))):
            if index:
                self.put(",")
            self.blank()
            self.assign(path, taken, depth)
            self.blank()
        self.put("}")

    def header(self, base: Path, *names: str, array: bool) -> Path:
        """A table header; what it repeats of *base* (``[[app]]``, ``[app.sub]``) is not new."""
        start = len(self.text)
        self.put("[[" if array else "[")
        self.blank()
        for name in (step for step in base if isinstance(step, str)):
            self.text += self._spell(name)
            self.put(".")
        path = self.key(base, *names)
        if array:
            path = (*path, sum(known[:-1] == path for known in self.places))
            self.places[path] = start
        self.blank()
        self.put("]]" if array else "]")
        self.end()
        return path

    def body(self, base: Path, taken: set[str]) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.blank()
            self.assign(base, taken, depth=3)
            self.end()


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """A TOML text, and the offset of every key and array element in it."""
    writer = Writer(draw, draw(st.sampled_from(["\n", "\r\n"])))
    taken: set[str] = set()
    writer.body((), taken)
    for _ in range(draw(st.integers(0, 3))):
        name = writer.name(taken)
        taken.add(name)
        if draw(st.booleans()):
            writer.body(writer.header((), name, array=False), set())
            continue
        for _ in range(draw(st.integers(1, 3))):
            element = writer.header((), name, array=True)
            inside: set[str] = set()
            writer.body(element, inside)
            if draw(st.booleans()) and "sub" not in inside:
                writer.body(writer.header(element, "sub", array=False), set())
    return writer.text, writer.places
