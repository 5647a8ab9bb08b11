#!/bin/sh
# Half of the users meet the new version, each always the same one, until the sample is there; then a person decides.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python train.py "$work"
podium model push scans "$work/v1.pkl"
podium model push scans "$work/v2.pkl"
podium apply -f scans.yaml --wait

EXAMPLE_TOKEN=$(podium token create scans-traffic --role predict)
export EXAMPLE_TOKEN
gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')

sed 's/version: 1/version: 2/' scans.yaml | podium apply -f -
until podium rollout status scans | grep -q '50 % on the candidate'; do sleep 0.2; done
for turn in 1 2 3; do python ask.py "$gateway"; done

# Held for a person: exit code 11.
code=0
podium rollout status scans --wait --timeout 60s || code=$?
test "$code" -eq 11
podium rollout explain scans
podium rollout promote scans
podium rollout status scans --wait
python ask.py "$gateway"
podium delete deployment scans --wait
