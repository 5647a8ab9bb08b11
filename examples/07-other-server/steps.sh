#!/bin/sh
# A server of your own instead of Podium's: a command with a port to fill in, checked files, two replicas, a new version.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

podium model push house-price model
podium apply -f house.yaml --wait
podium predict house-price --row 4,10
podium get deployment house-price

cp model/podium.yaml model/serve.py "$work"
echo '{"rooms": 45.0, "age": -1.5, "base": 125.0}' >"$work/weights.json"
podium model push house-price "$work"
sed 's/version: 1/version: 2/' house.yaml | podium apply -f - --wait
podium predict house-price --row 4,10 -o json | tee "$work/answer.json"
grep -q 290 "$work/answer.json"
podium delete deployment house-price --wait
