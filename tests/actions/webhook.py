# SPDX-License-Identifier: Apache-2.0
"""A web server on the loopback that remembers what it was sent, and fails when told to."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Webhook:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/SECRET"
        self.received: list[Any] = []
        self.tries = 0
        self.failures = 0  # how many requests are still to fail
        self.status = 500  # of a failure


@contextmanager
def serve_webhook() -> Iterator[Webhook]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.tries += 1
            fails = hook.failures > 0
            hook.failures -= fails
            if not fails:
                hook.received.append(json.loads(body))
            self.send_response(hook.status if fails else 200)
            self.send_header("Location", hook.url)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Webhook(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hook
        finally:  # or a test that fails would hang
            server.shutdown()
            thread.join()
