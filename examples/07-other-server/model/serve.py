"""A model server in one file of the standard library: it stands for Triton, MLServer or whatever you have.

It knows one model, `house`, by the Open Inference Protocol, and nothing of Podium.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder, port = Path(sys.argv[1]), int(sys.argv[2])
weights = json.loads((folder / "weights.json").read_text())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        known = {
            "/v2/health/ready": {"ready": True},
            "/v2/models/house/ready": {"name": "house", "ready": True},
            "/v2/models/house": {
                "name": "house",
                "platform": "example",
                "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}],
                "outputs": [{"name": "price", "datatype": "FP64", "shape": [-1]}],
            },
        }
        self.answer(200, known[self.path]) if self.path in known else self.answer(
            404, {"error": "no such path"}
        )

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v2/models/house/infer":
            self.answer(404, {"error": "no such path"})
            return
        rows = request["inputs"][0]
        values = [value for row in rows["data"] for value in (row if isinstance(row, list) else [row])]
        pairs = zip(values[::2], values[1::2], strict=True)
        prices = [weights["base"] + weights["rooms"] * rooms + weights["age"] * age for rooms, age in pairs]
        output = {"name": "price", "datatype": "FP64", "shape": [len(prices)], "data": prices}
        self.answer(200, {"model_name": "house", "outputs": [output]})


print(f"serving {folder} on port {port}", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
