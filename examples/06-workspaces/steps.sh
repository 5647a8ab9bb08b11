#!/bin/sh
# Two teams with a deployment of the same name, and a token that reaches only one of them.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

podium apply -f teams.yaml
python ../01-first-model/train.py "$work/score.pkl"
for team in fraud growth; do
    podium model push score "$work/score.pkl" -w "$team"
    podium apply -f score.yaml -w "$team" --wait
done
# The quota of fraud is two replicas: a third is refused, with the quota and by how much.
sed 's/^spec:/spec:\n  replicas: 3/' score.yaml >"$work/three.yaml"
if podium apply -f "$work/three.yaml" -w fraud 2>"$work/said"; then exit 1; fi
grep 'quota of replicas: 3 asked for' "$work/said"

token=$(podium token create fraud-app --role predict -w fraud)
gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')
ask() { EXAMPLE_TOKEN=$token python ask.py "$gateway" "$1"; }
test "$(ask fraud)" = 200
test "$(ask growth)" = 403

for team in fraud growth; do
    podium delete deployment score -w "$team" --wait
done
