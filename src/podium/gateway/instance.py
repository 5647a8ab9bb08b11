"""Which agent this is: two that report under one name would overwrite each other's reports. Called by `reporting`."""

import os
import secrets
import socket
from typing import Any

from podium.gateway.settings import Layout

_LONGEST_HOST = 255


def instance_of(layout: Layout) -> dict[str, Any]:
    """For the reports of an agent that starts in this home, which is prepared: the folder's id, which stays, and one of
    this start."""
    return {
        "home": _home_id(layout),
        "start": secrets.token_hex(8),
        "host": socket.gethostname()[:_LONGEST_HOST],
        "pid": os.getpid(),
    }


def _home_id(layout: Layout) -> str:
    try:
        if known := layout.identity.read_text().strip()[:64]:
            return known
    except FileNotFoundError:
        pass
    # Only one agent at a time is in a home; half a file is no id, so it comes by rename.
    made, draft = secrets.token_hex(16), layout.identity.with_suffix(".new")
    draft.write_text(made)
    draft.replace(layout.identity)
    return made
