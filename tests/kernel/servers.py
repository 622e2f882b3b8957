# SPDX-License-Identifier: Apache-2.0
"""Servers that count what reaches them: TCP connections and UDP datagrams."""

import selectors
import socket
import threading
import time
from collections import Counter

from tests.kernel.network import Network
from tests.kernel.settings import PATIENCE

REPLY = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhi\n"


class Servers:
    """One dual-stack TCP and UDP server on each port, inside *network*.

    TCP answers any request with a small HTTP page. Ports can be added.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._tcp: Counter[int] = Counter()
        self._udp: Counter[int] = Counter()
        self._markers: set[tuple[str, int]] = set()
        self._ports: set[int] = set()
        self._running = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def open(self, *ports: int) -> None:
        """Serve *ports* too; those served already are left alone."""
        for port in set(ports) - self._ports:
            self._ports.add(port)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                server = self._network.call(_listen, kind, port)
                transport = "tcp" if kind == socket.SOCK_STREAM else "udp"
                self._selector.register(server, selectors.EVENT_READ, transport)

    def connections(self, port: int) -> int:
        """TCP connections that *port* accepted, all that were made before this call."""
        self._settle("tcp", port)
        with self._lock:
            return self._tcp[port]

    def datagrams(self, port: int) -> int:
        """UDP datagrams that reached *port*, all that were sent before this call."""
        self._settle("udp", port)
        with self._lock:
            return self._udp[port]

    def counted(self, port: int) -> tuple[int, int]:
        """Connections and datagrams counted so far, whatever may still be under way."""
        with self._lock:
            return self._tcp[port], self._udp[port]

    def reached(self, port: int) -> int:
        """Anything at all that reached *port*."""
        return self.connections(port) + self.datagrams(port)

    def _settle(self, transport: str, port: int) -> None:
        # A marker of our own queues up behind everything sent before it.
        kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
        with self._network.call(socket.socket, socket.AF_INET6, kind) as marker:
            marker.bind(("::1", 0))
            name = (transport, marker.getsockname()[1])
            with self._lock:
                self._markers.add(name)
            marker.connect(("::1", port))
            marker.send(b"marker")
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                with self._lock:
                    if name not in self._markers:
                        return
                time.sleep(0.002)
        raise TimeoutError(f"the {transport} server on port {port} does not answer")

    def _serve(self) -> None:
        while self._running:
            for key, _ in self._selector.select(0.1):
                channel = key.fileobj
                assert isinstance(channel, socket.socket)
                if key.data == "tcp":
                    self._accept(channel)
                elif key.data == "udp":
                    self._receive(channel)
                else:
                    self._drain(channel)

    def _accept(self, server: socket.socket) -> None:
        client, peer = server.accept()
        self._count("tcp", self._tcp, server, peer[1])
        client.setblocking(False)
        try:
            client.send(REPLY)
            client.shutdown(socket.SHUT_WR)
        except OSError:  # a prober only connects and is gone
            client.close()
            return
        self._selector.register(client, selectors.EVENT_READ, "client")

    def _receive(self, server: socket.socket) -> None:
        _, peer = server.recvfrom(2048)
        self._count("udp", self._udp, server, peer[1])

    def _count(
        self, transport: str, counter: Counter[int], server: socket.socket, peer_port: int
    ) -> None:
        with self._lock:
            if (transport, peer_port) in self._markers:
                self._markers.discard((transport, peer_port))
            else:
                counter[server.getsockname()[1]] += 1

    def _drain(self, client: socket.socket) -> None:
        # Closing with a request unread would reset the client before it has the page.
        try:
            if client.recv(65536):
                return
        except OSError:
            pass
        self._selector.unregister(client)
        client.close()

    def close(self) -> None:
        self._running = False
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _listen(kind: int, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6, kind)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        server.listen(128)
    return server
