"""Lets a confined process load a model once and tell its signature: the `Inspector` of a push."""

import json
import secrets
from pathlib import Path
from typing import Any

from podium.app.publishing import signature_of
from podium.processes.sandbox import Box, Limits, python_roots, scrubbed_environment
from podium.processes.supervision import Program, private_folder, remove, run_once
from podium.resources.errors import InvalidInput, Issue

_TIMEOUT = 300.0
_MEMORY = 8 * 2**30
_MAX_ANSWER = 2**20


class SandboxedInspector:
    """Runs under `root`, one folder per run, removed afterwards."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def inspect(
        self, python: Path, model_path: Path, manifest_path: Path, manifest_digest: str
    ) -> dict[str, Any]:
        """What `podium_runtime inspect` printed. Raises InvalidInput with the model's own words."""
        folder = self._root / secrets.token_hex(8)
        config = self._root / f"{folder.name}.json"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        served = {"name": "inspection", "version": "0", "workspace": "default", "revision": "inspection"}
        wish = {
            "served": served, "modelPath": str(model_path), "manifestPath": str(manifest_path),
            "manifestDigest": manifest_digest, "listen": {"fd": 3},
        }  # fmt: skip
        config.write_text(json.dumps(wish))
        try:
            done = run_once(
                folder,
                Program(
                    argv=(str(python), "-I", "-B", "-m", "podium_runtime", "inspect", str(config)),
                    env=scrubbed_environment(python, private_folder(folder), threads=1),
                    box=Box(read=(model_path, manifest_path, config), run=python_roots(python)),
                    limits=Limits(memory=_MEMORY, niceness=5),
                    timeout=_TIMEOUT,
                    capture_stdout=_MAX_ANSWER,
                ),
            )
            if not done.stdout.strip():
                words = " ".join(done.log_tail[-5:])[-1000:]
                raise InvalidInput(Issue("files", f"the model does not load: {done.reason}. {words}"))
            return signature_of(done.stdout.decode(errors="replace"))
        finally:
            remove(folder)
            config.unlink(missing_ok=True)
