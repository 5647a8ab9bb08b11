"""The command line: `serve` runs one replica, `inspect` looks at a model.

Started by Podium inside the sandbox, or by hand. Sizes native thread pools in the environment before numpy is
imported, which is why the rest of the package is imported inside the functions.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from podium_runtime import __version__
from podium_runtime.config import Config, read_config
from podium_runtime.errors import StartupFault

_POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)

_DESCRIPTION = (
    "Podium's model server: serves one replica of one model revision over the Open Inference Protocol."
)
_EPILOG = """\
CONFIG.json names the model's folder, its manifest with the digest that was approved, and where to listen:

  {"served": {"name": "churn", "version": "3", "workspace": "default", "revision": "churn-00002"},
   "modelPath": "/path/to/folder", "manifestPath": "/path/to/manifest.json", "manifestDigest": "sha256:...",
   "listen": {"fd": 3[, "hold": true]} or {"uds": "/path/to/socket"} or {"host": "127.0.0.1", "port": 0}}

Optional, with defaults: batch {"maxSize": 64, "maxDelayMs": 0}, queue {"maxLength": 1024}, maxBodyBytes 16777216,
maxTensorElements 16777216, maxStreams 16, warmup {"requests": 1, "example": null}, drainSeconds 20,
requestTimeoutSeconds 30, watchdogSeconds (twice the request's time, at least 30; 0 for none), threads 1.

exit codes of serve:
  0  drained after SIGTERM
  2  the configuration is unusable
  3  the manifest or a file is not what was pushed
  4  the model does not load, or fails on its declared example
  5  one call of the model took longer than watchdogSeconds, or the thread that calls it died
The last lines on stderr say why. Logs are JSON lines on stderr.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="podium-runtime",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"podium-runtime {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="serve the model until SIGTERM", description="Serve the model until SIGTERM."
    )
    look = commands.add_parser(
        "inspect",
        help="load the model and print its signature as one JSON line",
        description='Load the model and print {"signature", "framework"} as one JSON line, or {"error"} and exit 1.',
    )
    for command in (serve, look):
        command.add_argument("config", type=Path, metavar="CONFIG.json", help="the replica's configuration")
    parsed = parser.parse_args(arguments)
    return _serve(parsed.config) if parsed.command == "serve" else _inspect(parsed.config)


def _prepare(config: Config) -> None:
    for name in _POOLS:
        os.environ[name] = str(config.threads)
    # The model's folder is read-only, and byte code beside a verified file would be bytes that nobody verified.
    sys.dont_write_bytecode = True
    from podium_runtime.logs import set_up_logging

    set_up_logging()


def _serve(path: Path) -> int:
    # Whatever a model prints goes where logs go.
    os.dup2(2, 1)
    try:
        config = read_config(path)
        _prepare(config)
        from podium_runtime.server import serve

        serve(config)
    except StartupFault as fault:
        print(f"podium-runtime: {fault}", file=sys.stderr, flush=True)
        return fault.exit_code
    return 0


def _inspect(path: Path) -> int:
    sys.stdout.flush()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    code = 0
    try:
        config = read_config(path, needs_listen=False)
        _prepare(config)
        from podium_runtime.inspection import inspect_model

        document = inspect_model(config)
    except StartupFault as fault:
        from podium_runtime.inspection import describe_error

        document = describe_error(fault)
        code = 2 if fault.exit_code == 2 else 1
    with answer:
        answer.write(json.dumps(document) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
