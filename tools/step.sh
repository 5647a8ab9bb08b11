#!/bin/sh
# Runs one step of the set-up: tools/step.sh "what it does" COMMAND [ARGUMENT...]. Called by the Makefile.
# Prints one line and the time it took. A step that fails shows the end of what it said, and where the rest is.
# VERBOSE=1 shows everything as it happens.

what=$1
shift

if [ -n "$VERBOSE" ]; then
    printf '[setup] %s\n        %s\n' "$what" "$*"
    exec "$@"
fi

logs=.cache/setup
mkdir -p "$logs" || exit 1
log=$logs/$(printf '%s' "$what" | tr -cs 'A-Za-z0-9.' '-' | sed 's/-$//').log
printf '[setup] %s ... ' "$what"
start=$(date +%s)
"$@" >"$log" 2>&1
status=$?
if [ "$status" -eq 0 ]; then
    printf 'done in %s s\n' "$(($(date +%s) - start))"
    exit 0
fi
printf 'FAILED (exit status %s)\n' "$status"
tail -n 25 "$log" | sed 's/^/    | /'
cat <<END
    The whole output: $log
    The command: $*
    Next: mend what it names, then run make again; what is done already is not done again.
END
exit "$status"
