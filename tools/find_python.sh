#!/bin/sh
# Prints the path of a Python that can make podium's virtual environment: 3.11 or newer, with venv and ensurepip.
# Called by the Makefile. Each candidate is run, because a version manager's shim may exist and still fail.
# PYTHON=... (a name or a path) takes that one and no other.

for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if ! found=$(command -v "$name" 2>/dev/null); then
        tried="$tried
  $name: not found"
    elif said=$("$found" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
import ensurepip, ssl, venv
' 2>&1); then
        # The interpreter behind the shim: a shim may answer differently in another folder.
        exec "$found" -c 'import sys; print(sys.executable)'
    else
        # A traceback says it in its last line, everything else in its first.
        case $said in
            Traceback*) said=$(printf '%s\n' "$said" | tail -n 1) ;;
            *) said=$(printf '%s\n' "$said" | head -n 1) ;;
        esac
        tried="$tried
  $found: $said"
    fi
done

cat >&2 <<END
No Python 3.11 or newer with venv was found. Tried:$tried
Next: install one (on Debian and Ubuntu: python3 and python3-venv), or name one: make PYTHON=/path/to/python3.12
END
exit 1
