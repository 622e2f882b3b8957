# SPDX-License-Identifier: Apache-2.0
"""What systemd says of the units' sandbox."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aegis.broker.units import SOCKETS
from aegis.cli.running import UNLOADED
from aegis.off import OFF_FILE
from aegis.privileges import BROKERS, HOOKS
from tests.kernel.settings import REQUIRED

DEBIAN = Path(__file__).resolve().parents[1] / "debian"
AIM = 2.0
UNITS = sorted(path.name for path in DEBIAN.glob("*.service"))


@pytest.fixture
def analyze() -> None:
    """What measures, of the package systemd."""
    if shutil.which("systemd-analyze") is None:
        assert not REQUIRED, "AEGIS_KERNEL_TESTS=1, but there is no systemd-analyze"
        pytest.skip("no systemd-analyze")


def exposure(text: str, folder: Path) -> float:
    """By systemd's own measure: 10 is everything."""
    unit = folder / "measured.service"
    unit.write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def test_each_kind_of_reaction_has_a_unit() -> None:
    """With a socket of its own, where only root may ask."""
    for name in BROKERS:
        unit = "aegis-hooks@" if name == HOOKS else f"aegis.aegis-{name}"
        assert f"{unit}.service" in UNITS
        socket = (DEBIAN / f"{unit}.socket").read_text()
        place = f"{SOCKETS}/{name}{'@%i' if name == HOOKS else ''}"
        assert f"ListenSequentialPacket={place}\n" in socket
        assert "SocketMode=0600\n" in socket


def test_rules_come_before_the_network() -> None:
    """As threat-model 4.2 orders it; ``./dev soak boot`` shows what comes of it."""
    lines = (DEBIAN / "aegis.aegis-load.service").read_text().splitlines()
    orders = {
        key: set(value.split())
        for key, _, value in (line.partition("=") for line in lines)
        if key in ("DefaultDependencies", "After", "Wants", "Before", "WantedBy")
    }
    assert orders == {
        "DefaultDependencies": {"no"},
        "After": {"local-fs.target", "systemd-tmpfiles-setup.service"},
        "Wants": {"network-pre.target"},
        "Before": {"network-pre.target", "sysinit.target", "shutdown.target"},
        "WantedBy": {"sysinit.target"},
    }


def test_what_is_started_anew_asks_each_time_whether_it_may() -> None:
    """systemd asks its conditions only at the first start: an agent would come and go for ever."""
    for name in UNITS:
        text = (DEBIAN / name).read_text()
        if "Restart=always" in text:
            assert f"ConditionPathExists=!{OFF_FILE}\n" in text
            assert f"ExecCondition=/usr/bin/test ! -e {OFF_FILE}\n" in text


def test_who_was_unloaded_is_not_started_anew() -> None:
    """Nor has it failed: of all ends only the one by ``aegis unload``."""
    lines = (DEBIAN / "aegis.service").read_text().splitlines()
    assert "Restart=always" in lines
    for key in ("RestartPreventExitStatus", "SuccessExitStatus"):
        assert [line for line in lines if line.startswith(f"{key}=")] == [f"{key}={UNLOADED}"]
    assert UNLOADED not in (0, 1, 2)  # done, failed, usage


@pytest.mark.usefixtures("analyze")
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_is_as_low_as_promised(name: str, user: str, tmp_path: Path) -> None:
    """Of each; hooks also as root, which is what they are unless a policy says otherwise."""
    text = (DEBIAN / name).read_text()
    assert exposure(text.replace("%i", user), tmp_path) <= AIM


@pytest.mark.usefixtures("analyze")
def test_one_capability_more_is_noticed(tmp_path: Path) -> None:
    """The measure measures: with SYS_ADMIN the agent's unit would not pass."""
    text = (DEBIAN / "aegis.service").read_text()
    more = text.replace("CapabilityBoundingSet=", "CapabilityBoundingSet=CAP_SYS_ADMIN ")
    assert exposure(more, tmp_path) > AIM


def test_what_a_unit_may_is_what_its_broker_takes() -> None:
    """Neither more nor less; as root hooks have nothing, without systemd they change users."""
    for name in sorted(BROKERS.keys() - {HOOKS}):
        text = (DEBIAN / f"aegis.aegis-{name}.service").read_text()
        (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
        assert set(line.split()) == BROKERS[name]
    text = (DEBIAN / "aegis-hooks@.service").read_text()
    assert "\nCapabilityBoundingSet=\n" in text
