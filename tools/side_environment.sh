#!/bin/sh
# Makes an environment beside .venv from a lock of its own: tools/side_environment.sh .venv-NAME requirements/NAME.txt.
# Called by the Makefile. Its Python is .venv's; the hash of every file is checked. As in install_requirements.sh, the
# certificates of the system are the second try.

folder=$1
lock=$2
.venv/bin/uv venv --quiet --clear --python .venv/bin/python "$folder" || exit 1
.venv/bin/uv pip sync --python "$folder/bin/python" --require-hashes "$lock" && exit 0
echo "uv could not install $lock (its words are above); now with the system's certificates"
exec .venv/bin/uv pip sync --python "$folder/bin/python" --require-hashes --system-certs "$lock"
