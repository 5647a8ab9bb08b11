#!/bin/sh
# The new version can be tried by header before anyone else gets it; then one flip, and one flip back.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python train.py "$work"
podium model push diabetes "$work/v1.pkl"
podium model push diabetes "$work/v2.pkl"
podium apply -f diabetes.yaml --wait

EXAMPLE_TOKEN=$(podium token create preview --role predict)
export EXAMPLE_TOKEN
gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')

# Held for a person: exit code 11.
code=0
sed 's/version: 1/version: 2/' diabetes.yaml | podium apply -f - --wait --timeout 120s || code=$?
test "$code" -eq 11
test "$(python ask.py "$gateway")" = diabetes-00001
test "$(python ask.py "$gateway" preview)" = diabetes-00002

podium rollout promote diabetes
podium rollout status diabetes --wait
test "$(python ask.py "$gateway")" = diabetes-00002

# The old one was kept warm: back in one flip.
podium rollback diabetes --wait
test "$(python ask.py "$gateway")" = diabetes-00001
podium rollout history diabetes
podium delete deployment diabetes --wait
