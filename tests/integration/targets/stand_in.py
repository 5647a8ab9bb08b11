"""A model server's manners without a model: installed as `podium_runtime` into a test's environment.

It reads the same configuration, listens on descriptor 3, and does what the file `behave.json` in the model's folder
says: {"ready_after": seconds, "crash": text, "stubborn": true}. While there is a file `busy` it is silent.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from socketserver import BaseServer

config = json.loads(Path(sys.argv[2]).read_text())
behave = json.loads((Path(config["modelPath"]) / "behave.json").read_text())
started = time.monotonic()
print(json.dumps({"message": "starting", "argv": sys.argv[1]}), file=sys.stderr, flush=True)
if "crash" in behave:
    sys.exit(behave["crash"])
answered = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/identity":
            body = json.dumps(
                {"pid": os.getpid(), "cpus": sorted(os.sched_getaffinity(0)), "served": config["served"]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if answered.is_set() and (Path(config["modelPath"]) / "busy").exists():
            time.sleep(60)
        ready = time.monotonic() - started >= behave.get("ready_after", 0)
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if ready:
            answered.set()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """On descriptor 3. Its parent would make a socket first, and in the box none can be made."""

    daemon_threads = True

    def __init__(self) -> None:
        BaseServer.__init__(self, ("unix", 0), Handler)
        self.socket = socket(fileno=3)

    def get_request(self) -> tuple[socket, str]:
        return self.socket.accept()[0], "unix"


def drain(*_: object) -> None:
    print(json.dumps({"message": "draining"}), file=sys.stderr, flush=True)
    if not behave.get("stubborn"):
        os._exit(0)


signal.signal(signal.SIGTERM, drain)


print(json.dumps({"message": "serving"}), file=sys.stderr, flush=True)
Server().serve_forever()
