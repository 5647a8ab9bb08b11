"""A replica at the wire: HTTP/1.1 on a Unix socket, standard library only. `python replica.py SOCKET REVISION`.

It answers what it saw, as JSON. The query steers it: `status=503`, `sleep=0.2`, `count=NAME` (the answer to the first
request with that name is held back until the process is killed).
"""

import asyncio
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit


class Exchange(asyncio.Protocol):
    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, rest = self.buffer.split(b"\r\n\r\n", 1)
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, target, _ = first.split(" ")
            self.answer(method, target, headers, length)

    def answer(self, method: str, target: str, headers: dict[str, str], length: int) -> None:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
        seen = {
            "revision": self.revision, "pid": os.getpid(), "method": method, "target": target, "headers": headers,
            "bytes": length,
        }  # fmt: skip
        body = json.dumps(seen).encode()
        status = query.get("status", "200")
        extra = "retry-after: 1\r\n" if status == "429" else ""
        answer = (
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-podium-revision: {self.revision}\r\n{extra}\r\n"
        ).encode() + body
        delay = float(query.get("sleep", "0"))
        if delay:
            asyncio.get_running_loop().call_later(delay, self.write, answer)
        else:
            self.write(answer)

    def write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


async def main(path: str, revision: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Exchange(revision), path, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
