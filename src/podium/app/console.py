"""How a process of an installation speaks and listens: log lines, signals. Called by `__main__` for every part.

Imports nothing of the parts: the supervisor and the gateway stay small.
"""

import logging
import signal
import threading


def configure_logging() -> None:
    """One line per record on stderr, which the supervisor sends to a file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "httpcore", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def ignore_hangup() -> None:
    """A closed terminal does not end a server."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
