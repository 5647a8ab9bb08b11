"""uv as a program: runs it with the user's index settings, and finds the interpreters of this machine.

Called by `locks`, `building` and `uv`. Index settings of the user (UV_*, certificates, proxies) reach uv through the
environment; nothing of them is ever written into a lock, and no address with a password into words for people.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from podium.resources.errors import InvalidInput, Issue, Unavailable

Say = Callable[[str], None]
_PASSED_PREFIXES = ("UV_", "SSL_CERT", "XDG_", "LC_")
_PASSED = ("PATH", "HOME", "LANG", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
           "NO_PROXY", "ALL_PROXY", "all_proxy", "NETRC")  # fmt: skip
# A user's project settings must not bend what is made here.
_DROPPED = ("UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_COMPILE_BYTECODE", "UV_SYSTEM_PYTHON", "UV_EDITABLE")
_MAX_WORDS = 4000
_CERTIFICATES = ("UnknownIssuer", "invalid peer certificate")
_PYTHON = re.compile(r"3\.\d{1,2}")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


class UvFailed(Exception):
    """uv said no; `words` are its own, at most 4,000 characters."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class Installer:
    """The uv at `binary`. Where neither UV_CACHE_DIR nor `cache` says otherwise, its cache is the user's own."""

    def __init__(self, binary: Path, cache: Path | None = None) -> None:
        self._binary, self._cache = binary, cache

    def call(
        self,
        arguments: Sequence[str],
        *,
        say: Say | None = None,
        text: str | None = None,
        keep: Sequence[int] = (),
    ) -> str:
        """Run uv and return its standard output; each line of its standard error goes to `say` as it comes.

        `text` is its standard input. `keep`: descriptors that it holds open for as long as it runs, even if this
        process dies. Raises UvFailed with uv's words, Unavailable where uv itself cannot be run. A failure over
        certificates is tried once more with the system's.
        """
        try:
            return self._call(arguments, say, text, keep)
        except UvFailed as failed:
            if not any(mark in failed.words for mark in _CERTIFICATES) or os.environ.get("UV_SYSTEM_CERTS"):
                raise
            return self._call([arguments[0], "--system-certs", *arguments[1:]], say, text, keep)

    def _call(self, arguments: Sequence[str], say: Say | None, text: str | None, keep: Sequence[int]) -> str:
        try:
            process = subprocess.Popen(
                [self._binary, "--no-config", *arguments],
                env=self._environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, encoding="utf-8", errors="replace", cwd="/", pass_fds=keep,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(
                f"uv cannot be run: {error.strerror}", next_step="reinstall podium; uv comes with it"
            ) from None
        words: list[str] = []

        def listen() -> None:
            for line in process.stderr or ():
                clean = _PASSWORD.sub("", line)
                words.append(clean)
                if say is not None and clean.strip():
                    say(clean.strip()[:300])

        listener = threading.Thread(target=listen, name="uv-words", daemon=True)
        listener.start()
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes
            with process.stdin as given:
                given.write(text or "")
            with process.stdout as output:
                said = output.read()
            code = process.wait()
        except BrokenPipeError:
            said, code = "", process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            listener.join(5)
        if process.stderr is not None:
            process.stderr.close()
        if code != 0:
            raise UvFailed("".join(words).strip()[-_MAX_WORDS:] or f"uv ended with code {code}")
        return said

    def find_python(self, version: str) -> Path:
        """An interpreter `3.X` of this machine, this process's own where it fits; never one that is downloaded.

        Raises InvalidInput naming what is here.
        """
        if not _PYTHON.fullmatch(version):
            # Anything else uv might take for a path or an option.
            raise InvalidInput(Issue("python", f"{version[:40]!r}: expected a Python version such as 3.11"))
        if version == _own():
            return Path(sys.executable)
        try:
            return Path(self.call(["python", "find", "--system", version]).strip())
        except UvFailed:
            known = ", ".join(self.installed_pythons())
            raise InvalidInput(
                Issue("python", f"Python {version} is not installed on this machine; there is {known}"),
                next_step=f"install Python {version} on the server, or push with one of those (--python)",
            ) from None

    def installed_pythons(self) -> list[str]:
        """Versions `3.X` that are installed, newest first; this process's own is always among them."""
        try:
            listing = self.call(["python", "list", "--only-installed"])
        except UvFailed:
            listing = ""
        found = {
            line.split("-")[1].rpartition(".")[0]
            for line in listing.splitlines()
            if line.startswith("cpython-")
        }
        return sorted(found | {_own()}, key=lambda text: tuple(map(int, text.split("."))), reverse=True)

    def _environment(self) -> dict[str, str]:
        passed = {
            name: value
            for name, value in os.environ.items()
            if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and name not in _DROPPED
        }
        if self._cache is not None:
            passed.setdefault("UV_CACHE_DIR", str(self._cache))
        # Hard links from the cache are quick and small; a sandboxed model cannot write to them.
        passed.setdefault("UV_LINK_MODE", "hardlink")
        return {**passed, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}


def _own() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
