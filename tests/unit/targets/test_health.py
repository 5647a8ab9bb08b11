"""Readiness over Unix sockets, from servers of every kind of manners."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podium.targets.process.health import Answer, Question, ask


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[[str, list[bytes]], Path]]:
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []
    over = threading.Event()

    def start(name: str, chunks: list[bytes]) -> Path:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / name))
        listener.listen()
        listeners.append(listener)

        def answer() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                for chunk in chunks:
                    try:
                        connection.sendall(chunk)
                    except OSError:
                        return
                    if over.wait(0.05 if len(chunks) > 1 else 0):
                        return
                if not chunks:
                    over.wait(10)

        threads.append(threading.Thread(target=answer, daemon=True))
        threads[-1].start()
        return folder / name

    yield start
    over.set()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(5)


def ask_all(sockets: list[Path], timeout: float) -> list[Answer]:
    return ask([Question(path) for path in sockets], timeout)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("chunks", "answer"),
    [
        ([OK], "ready"),
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "notReady"),
        ([b"HTTP/1.1 2", b"00 OK\r", b"\n\r\n"], "ready"),
        ([b"x" * 5000], "notReady"),
        ([b"200\r\n"], "notReady"),
        ([b"\r\n200"], "notReady"),
        ([b"HTTP/1.1"], "notReady"),
        ([], "silent"),
        ([b"H"] * 200, "silent"),
    ],
)
def test_answers(serve: Callable[[str, list[bytes]], Path], chunks: list[bytes], answer: str) -> None:
    assert ask_all([serve("s", chunks)], 0.5) == [answer]


def test_nobody_there(folder: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / "left"))
    left.close()
    assert ask_all([folder / "none", folder / "left"], 1.0) == ["gone", "gone"]
    assert ask_all([], 1.0) == []


def test_all_together_take_one_deadline(serve: Callable[[str, list[bytes]], Path]) -> None:
    paths = [serve(f"s{n}", []) for n in range(20)] + [serve("ok", [OK])]
    before = time.monotonic()
    answers = ask_all(paths, 0.3)
    assert time.monotonic() - before < 5  # one after the other would take 6 s
    assert answers == ["silent"] * 20 + ["ready"]


def test_a_full_queue_is_silence_not_absence(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "full"))
        listener.listen(0)
        waiting = []
        while True:
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            waiting.append(one)
            try:
                one.connect(str(folder / "full"))
            except BlockingIOError:
                break
        assert ask_all([folder / "full"], 0.2) == ["silent"]
        for one in waiting:
            one.close()


def test_a_port_is_asked_for_its_own_path(serve: Callable[[str, list[bytes]], Path]) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.0 200 Fine\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        questions = [Question(port, "/up?deep=1"), Question(serve("local", [OK]))]
        assert ask(questions, 2.0) == ["ready", "ready"]
        thread.join(5)
        assert heard[0].startswith(f"GET /up?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
    assert ask([Question(port)], 1.0) == ["gone"]


def test_a_port_that_does_not_answer_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert ask([Question(listener.getsockname()[1])], 0.2) == ["silent"]
