#!/bin/sh
# Runs the tests in two parts: tools/run_tests.sh [PYTEST_ARGUMENT...]. Called by `make test`.
# First what may share the machine, two files at a time; then the chaos tests that load and kill whole installations and
# need both processors for themselves. Exit status: of the first part that failed, after both have run.

python=.venv/bin/python
# Of a file, every test goes to the same worker: fixtures of a module are made once.
workers=${TEST_WORKERS:-2}
none_found=5
# Some images forbid byte code. Tests start thousands of Pythons, and each would compile all that it imports: a command
# of podium takes 1.3 s of processor time instead of 0.8. What is written lies in __pycache__, as anywhere else.
unset PYTHONDONTWRITEBYTECODE

part() {
    "$python" tools/no_leftovers.py "$python" -m pytest -m 'not crash' "$@"
}

# The longest files come first and the many short ones last, so that no worker is left with a long one at the end.
part -n "$workers" --dist loadfile --no-loadscope-reorder "$@" \
    tests/e2e tests/chaos/test_store_crash.py tests/integration runtime/tests tests/unit
first=$?
# Ctrl-C, an internal error, wrong arguments: the second part would only repeat it.
case $first in 2 | 3 | 4 | 130) exit "$first" ;; esac
# -x: whoever wants to stop at the first failure has had it.
case " $* " in *' -x '*) [ "$first" -eq 1 ] && exit 1 ;; esac
part "$@" --ignore tests/chaos/test_store_crash.py tests/chaos
second=$?

# A choice (-k) may leave one part without any test.
[ "$first" -eq "$none_found" ] && exit "$second"
[ "$second" -eq "$none_found" ] && exit "$first"
[ "$first" -ne 0 ] && exit "$first"
exit "$second"
