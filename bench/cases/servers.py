# SPDX-License-Identifier: Apache-2.0
"""Programs people run, client and server under Aegis, over a veth pair."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.interleave import interleave, ratios
from bench.policies import Shape
from bench.result import Finding, Unable, at_least, row
from bench.world import Place, World
from tests.pace import HUNG_S

NAME = "servers"

_FAR = "10.77.0.2"
_NEEDED = ("nginx", "wrk", "redis-server", "redis-benchmark", "iperf3")
_RULES = "".join(
    f'[[app]]\nexe = "{name}"\nports = ["80", "5201", "6379"]\n'
    for name in ("wrk", "redis-benchmark", "iperf3", "nginx", "redis-server", "redis-check-rdb")
)
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 80; location / {{ return 200 "hi\\n"; }} }} }}
"""


def measure(world: World) -> Iterator[Finding]:
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        yield Unable("nginx, redis and iperf3", f"not installed: {', '.join(missing)}")
        return
    with world.places("plain", "aegis") as places:
        for place in places.values():
            _serve(world, place)
        places["aegis"].govern(Shape(extra=_RULES))
        for what, (once, rounds) in _WORKLOADS.items():
            turns = {
                name: (lambda place=place, once=once: once(place)) for name, place in places.items()
            }
            found = interleave(turns, world.size.of(rounds, 1), warm=world.size.of(1, 0))
            yield row(what, ratios(found, "aegis", "plain"), against="plain", goal=at_least(0.98))


def _serve(world: World, place: Place) -> None:
    far, folder = place.peer(), world.workshop.new_folder()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder))
    place.serve(far, "nginx", "-c", config)
    place.serve(
        far, "redis-server", "--port", "6379", "--save", "", "--protected-mode", "no",
        "--dir", str(folder), "--logfile", str(folder / "redis.log"),
    )  # fmt: skip
    place.serve(far, "iperf3", "-s", "--logfile", str(folder / "iperf3.log"))
    _wait_for(place, folder)


def _wait_for(place: Place, folder: Path) -> None:
    for port in ("80", "5201", "6379"):
        deadline = time.monotonic() + HUNG_S
        while place.loop().say(f"tcp {_FAR} {port} 1").startswith("Connection refused"):
            assert time.monotonic() < deadline, f"no server at {port}; see {folder}"
            time.sleep(0.1)


def _wrk(place: Place, *more: str) -> float:
    words = ["wrk", "-t1", "-c8", "-d1s", *more, f"http://{_FAR}/"]  # it counts in seconds
    outcome = place.programs.run(*words)
    found = re.search(r"Requests/sec:\s+([\d.]+)", outcome.stdout)
    assert found and "Non-2xx" not in outcome.stdout, outcome.stdout + outcome.stderr
    return float(found[1])


def _wrk_close(place: Place) -> float:
    return _wrk(place, "-H", "Connection: close")


def _redis(place: Place) -> float:
    words = ["redis-benchmark", "-h", _FAR, "-n", "50000", "-c", "8", "-t", "get", "--csv"]
    outcome = place.programs.run(*words)
    return float(outcome.stdout.splitlines()[-1].split(",")[1].strip('"'))


def _iperf3(place: Place) -> float:
    # By size: it knows no part of a second. Half of one is enough where no connection begins.
    outcome = place.programs.run("iperf3", "-c", _FAR, "-n", "1000M", "-J")
    return float(json.loads(outcome.stdout)["end"]["sum_received"]["bits_per_second"])


# With their rounds: the more, the more they vary.
_WORKLOADS: dict[str, tuple[Callable[[Place], float], int]] = {
    "nginx and wrk, kept connections: requests a second": (_wrk, 11),
    "nginx and wrk, a connection for each request: requests a second": (_wrk_close, 25),
    "redis-benchmark GET: requests a second": (_redis, 11),
    "iperf3: bits a second": (_iperf3, 30),
}
