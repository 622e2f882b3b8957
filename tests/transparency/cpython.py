# SPDX-License-Identifier: Apache-2.0
"""CPython's own tests of the network, as Debian ships them; each test is compared."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.transparency.suite import Outcomes, Run

# This system's Python, not the one in .venv.
PYTHON = Path("/usr/bin/python3").resolve()
PACKAGE = f"lib{PYTHON.name}-testsuite"
LIBRARY = Path("/usr/lib") / PYTHON.name / "test"

MODULES = (
    "test_asynchat", "test_asyncio", "test_asyncore", "test_docxmlrpc", "test_eintr",
    "test_epoll", "test_ftplib", "test_httplib", "test_httpservers", "test_imaplib",
    "test_ipaddress", "test_logging", "test_multiprocessing_fork",
    "test_multiprocessing_forkserver", "test_multiprocessing_spawn", "test_nntplib", "test_poll",
    "test_poplib", "test_robotparser", "test_select", "test_selectors", "test_smtpd",
    "test_smtplib", "test_socket", "test_socketserver", "test_ssl", "test_support",
    "test_telnetlib", "test_timeout", "test_urllib", "test_urllib2", "test_urllib2_localnet",
    "test_urllib2net", "test_urllib_response", "test_urllibnet", "test_wsgiref", "test_xmlrpc",
    "test_xmlrpc_net",
)  # fmt: skip
# Hangs where vsock has a transport but no loopback, as in a Firecracker guest, with no Aegis near.
IGNORED = "*ThreadedVSOCK*"
SECONDS = 400  # of one module

_MODULE = re.compile(r"\[ *\d+/\d+(?:/\d+)?\] (test_\w+) (passed|failed|skipped|crashed)")


class CPython:
    """``python3 -m test``. Names are the modules; the ``network`` tests run, and find none."""

    title = "CPython's tests"

    def __init__(self, names: Sequence[str] = MODULES, jobs: int = 8) -> None:
        self.names = tuple(n for n in names if any(LIBRARY.glob(f"{n}*")))
        self._jobs = jobs

    def run(self, names: Sequence[str], run: Run, folder: Path) -> Outcomes:
        report = folder / "junit.xml"
        report.unlink(missing_ok=True)
        command = f"{PYTHON} -m test -j{self._jobs} -u network -i {IGNORED} --timeout {SECONDS}"
        argv = [*command.split(), "--junit-xml", str(report), *names]
        output = run(argv, SECONDS * len(names)).output
        found: Outcomes = {name: {} for name in names}
        for name, word in _MODULE.findall(output):
            found[name]["(the module)"] = word
        for case in _cases(report):
            test = case.get("name", "")
            # Some modules take tests of others in, under those names.
            module = re.sub(r"^(test\.)?(test_\w+).*$", r"\2", test)
            found[module if module in found else names[0]][test] = _outcome(case)
        return found


def _cases(report: Path) -> Iterator[ET.Element]:
    if report.exists():
        yield from ET.parse(report).iter("testcase")  # noqa: S314  # written by our own child


def _outcome(case: ET.Element) -> str:
    words = {child.tag for child in case} & {"error", "failure", "skipped"}
    return "+".join(sorted(words)) or "passed"
