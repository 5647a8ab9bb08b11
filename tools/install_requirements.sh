#!/bin/sh
# Brings .venv to exactly what a lock names: tools/install_requirements.sh requirements/dev.txt. Called by the Makefile.
# uv does it in seconds. Where uv cannot reach an index and pip can (pip reads its own settings: PIP_*, pip.conf),
# pip does the same, slower, and says so. Both check every file's hash.

lock=$1
.venv/bin/uv pip sync --python .venv/bin/python --require-hashes "$lock" && exit 0
echo "uv could not install $lock (its words are above); now pip tries, with pip's own settings"
exec .venv/bin/python -m pip install --require-hashes --no-deps -r "$lock"
