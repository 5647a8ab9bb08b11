#!/bin/sh
# Brings .venv to exactly what a lock names: tools/install_requirements.sh requirements/dev.txt. Called by the Makefile.
# uv does it in seconds. Where it cannot reach an index, the next way is tried, and says so: uv with the certificates of
# the system (a company's proxy has one of its own), then pip, slower, with pip's own settings (PIP_*, pip.conf).
# Each way checks every file's hash.

lock=$1
.venv/bin/uv pip sync --python .venv/bin/python --require-hashes "$lock" && exit 0
echo "uv could not install $lock (its words are above); now with the system's certificates"
.venv/bin/uv pip sync --python .venv/bin/python --require-hashes --system-certs "$lock" && exit 0
echo "uv could not install $lock (its words are above); now pip tries, with pip's own settings"
exec .venv/bin/python -m pip install --require-hashes --no-deps -r "$lock"
