"""The agent as a process of its own: `python run_agent.py SETTINGS.json`."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from podium.gateway.main import run
from podium.gateway.settings import AccessRecord, CertificateFiles, GatewaySettings

if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    paths = {
        name: Path(given[name]) for name in ("home", "server_ca", "server_certificate") if given.get(name)
    }
    files: dict[str, Any] = (
        {"certificate": CertificateFiles(*map(Path, given["certificate"]))}
        if given.get("certificate")
        else {}
    )
    if record := given.get("record"):
        path = Path(record["path"]) if record["path"] else None
        files["record"] = AccessRecord(**(record | {"path": path}))
    run(GatewaySettings(**(given | paths | files)))
