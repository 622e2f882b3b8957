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
    rounds, seconds = world.size.of(9, 1), "1"
    with world.places("plain", "aegis") as places:
        for place in places.values():
            _serve(world, place)
        places["aegis"].govern(Shape(extra=_RULES))
        for what, once in _WORKLOADS.items():
            turns = {
                name: (lambda place=place, once=once: once(place, seconds))
                for name, place in places.items()
            }
            found = interleave(turns, rounds, warm=world.size.of(1, 0))
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
        deadline = time.monotonic() + 10
        while place.loop().say(f"tcp {_FAR} {port} 1").startswith("Connection refused"):
            assert time.monotonic() < deadline, f"no server at {port}; see {folder}"
            time.sleep(0.1)


def _wrk(place: Place, seconds: str, *more: str) -> float:
    words = ["wrk", "-t1", "-c8", f"-d{seconds}s", *more, f"http://{_FAR}/"]
    outcome = place.programs.run(*words)
    found = re.search(r"Requests/sec:\s+([\d.]+)", outcome.stdout)
    assert found and "Non-2xx" not in outcome.stdout, outcome.stdout + outcome.stderr
    return float(found[1])


def _wrk_close(place: Place, seconds: str) -> float:
    return _wrk(place, seconds, "-H", "Connection: close")


def _redis(place: Place, seconds: str) -> float:
    words = ["redis-benchmark", "-h", _FAR, "-n", str(50000 * int(seconds)), "-c", "8", "-t", "get"]
    outcome = place.programs.run(*words, "--csv")
    return float(outcome.stdout.splitlines()[-1].split(",")[1].strip('"'))


def _iperf3(place: Place, seconds: str) -> float:
    outcome = place.programs.run("iperf3", "-c", _FAR, "-t", seconds, "-J")
    return float(json.loads(outcome.stdout)["end"]["sum_received"]["bits_per_second"])


_WORKLOADS: dict[str, Callable[[Place, str], float]] = {
    "nginx and wrk, kept connections: requests a second": _wrk,
    "nginx and wrk, a connection for each request: requests a second": _wrk_close,
    "redis-benchmark GET: requests a second": _redis,
    "iperf3: bits a second": _iperf3,
}
