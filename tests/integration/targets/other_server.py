"""A server that knows nothing of Podium: the standard library's, with what its command says.

    other_server.py (--port N | --fd N) [--host H] [--also PORT] [--wait FILE] [--never]

GET /up: 200. GET /about: what it was given. GET /escape?port=N&file=F: what it gets by trying.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from urllib.parse import parse_qs, urlsplit

given = argparse.ArgumentParser()
given.add_argument("--port", type=int)
given.add_argument("--fd", type=int)
given.add_argument("--host", default="127.0.0.1")
given.add_argument("--also", type=int)
given.add_argument("--never", action="store_true")
options = given.parse_args()
print("the command began", flush=True)


def outcome(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "ok"


def escape(port: int, file: str) -> dict[str, str]:
    return {
        "connect": outcome(lambda: socket.create_connection(("127.0.0.1", port), 2)),
        "fast open": outcome(lambda: socket.socket().sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", port))),
        "listen": outcome(lambda: socket.create_server(("127.0.0.1", port + 1))),
        "udp": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "unix": outcome(lambda: socket.socket(socket.AF_UNIX)),
        "read": outcome(lambda: Path(file).read_text()),
        "write": outcome(lambda: Path(__file__).write_text("")),
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        about: dict[str, object] = {
            "path": self.path, "pid": os.getpid(), "argv": sys.argv, "environ": dict(os.environ), "cwd": os.getcwd(),
        }  # fmt: skip
        if parts.path == "/escape":
            about = dict(escape(int(asked["port"]), asked["file"]))
        body = json.dumps(about).encode()
        self.send_response(200 if parts.path in ("/up", "/about", "/escape") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "somebody"


class Inherited(ThreadingHTTPServer):
    def __init__(self, number: int) -> None:
        BaseServer.__init__(self, ("unix", 0), Handler)
        self.socket = socket.socket(fileno=number)

    def get_request(self) -> tuple[socket.socket, str]:
        return self.socket.accept()[0], "unix"


def drain(*_: object) -> None:
    print("draining", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, drain)
if options.never:
    time.sleep(3600)
more = socket.create_server((options.host, options.also)) if options.also else None
port = options.port or int(os.environ.get("PODIUM_PORT", "0"))
server = (
    Inherited(options.fd) if options.fd is not None else ThreadingHTTPServer((options.host, port), Handler)
)
server.serve_forever()
