"""Calls uv: finds interpreters, resolves requirements, makes virtual environments. The only importer of uv.

Called by `locks` and `uv`'s environments. Index settings of the user (UV_*, PIP_*, certificates, proxies) reach uv
through the environment; nothing of them is ever written into a lock.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from uv import find_uv_bin

from podium.resources.errors import InvalidInput, Issue, Unavailable

Say = Callable[[str], None]
_PASSED_PREFIXES = ("UV_", "PIP_", "SSL_CERT", "REQUESTS_CA", "CURL_CA", "XDG_", "LC_")
_PASSED = ("PATH", "HOME", "LANG", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
           "NO_PROXY", "ALL_PROXY", "all_proxy", "NETRC")  # fmt: skip
_MAX_WORDS = 4000
_CERTIFICATES = ("UnknownIssuer", "invalid peer certificate")


class UvFailed(Exception):
    """uv said no; `words` are its own, at most 4,000 characters."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def environment(cache: Path | None) -> dict[str, str]:
    """What uv gets of this process's environment. `cache` is used unless UV_CACHE_DIR says otherwise."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    passed.pop("UV_PROJECT_ENVIRONMENT", None)
    if cache is not None:
        passed.setdefault("UV_CACHE_DIR", str(cache))
    return {
        **passed,
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "NO_COLOR": "1",
        "UV_LINK_MODE": _link_mode(),
    }


def _link_mode() -> str:
    # Hard links from the cache are quick and small; a sandboxed model cannot write to them.
    return os.environ.get("UV_LINK_MODE", "hardlink")


def call(
    arguments: Sequence[str], *, cache: Path | None, say: Say | None = None, text: str | None = None
) -> str:
    """Run uv and return its standard output; each line of its standard error goes to `say` as it comes.

    Raises UvFailed with uv's words, Unavailable where uv itself cannot be run. A failure over certificates is tried
    once more with the system's.
    """
    try:
        return _call(arguments, cache=cache, say=say, text=text)
    except UvFailed as failed:
        if not any(mark in failed.words for mark in _CERTIFICATES) or os.environ.get("UV_SYSTEM_CERTS"):
            raise
        return _call([arguments[0], "--system-certs", *arguments[1:]], cache=cache, say=say, text=text)


def _call(arguments: Sequence[str], *, cache: Path | None, say: Say | None, text: str | None) -> str:
    try:
        process = subprocess.Popen(
            [find_uv_bin(), "--no-config", *arguments],
            env=environment(cache), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", cwd="/",
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(
            f"uv cannot be run: {error}", next_step="reinstall podium; uv comes with it"
        ) from None
    words: list[str] = []

    def listen() -> None:
        for line in process.stderr or ():
            words.append(line)
            if say is not None and line.strip():
                say(line.strip()[:300])

    listener = threading.Thread(target=listen, name="uv-words", daemon=True)
    listener.start()
    try:
        if text is not None and process.stdin is not None:
            process.stdin.write(text)
        if process.stdin is not None:
            process.stdin.close()
        output = process.stdout.read() if process.stdout is not None else ""
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        listener.join(5)
    if code != 0:
        raise UvFailed("".join(words).strip()[-_MAX_WORDS:] or f"uv ended with code {code}")
    return output


def find_python(version: str, *, cache: Path | None) -> Path:
    """An interpreter `3.X` of this machine; this process's own where it fits. Raises InvalidInput naming what is here."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    try:
        return Path(call(["python", "find", "--system", version], cache=cache).strip())
    except UvFailed:
        known = ", ".join(installed_pythons(cache=cache)) or "none that uv finds"
        raise InvalidInput(
            Issue("python", f"Python {version} is not installed on this machine; there is {known}"),
            next_step=f"install Python {version} on the server, or push with one of those (--python)",
        ) from None


def installed_pythons(*, cache: Path | None) -> list[str]:
    """Versions `3.X` that are installed, newest first; this process's own is always among them."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        listing = call(["python", "list", "--only-installed"], cache=cache)
    except UvFailed:
        return [own]
    found = {
        line.split("-")[1].rpartition(".")[0] for line in listing.splitlines() if line.startswith("cpython-")
    }
    return sorted(found | {own}, key=lambda text: tuple(int(part) for part in text.split(".")), reverse=True)
