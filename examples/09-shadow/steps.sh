#!/bin/sh
# The new version first answers copies of requests: nobody meets one that answers too differently.
set -eu
work=$(mktemp -d)
mkfifo "$work/end"
trap 'exec 3>&- || true; rm -rf "$work"' EXIT

python train.py "$work"
podium model push numerals "$work/first.pkl"
podium model push numerals "$work/mixed-up.pkl"
podium model push numerals "$work/better.pkl"
podium apply -f numerals.yaml --wait

EXAMPLE_TOKEN=$(podium token create numerals-traffic --role predict)
export EXAMPLE_TOKEN
gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')
python traffic.py "$gateway" <"$work/end" &
traffic=$!
exec 3>"$work/end"

sed 's/version: 1/version: 2/' numerals.yaml | podium diff -f - || true
code=0
sed 's/version: 1/version: 2/' numerals.yaml | podium apply -f - --wait --timeout 120s || code=$?
test "$code" -eq 10
podium rollout explain numerals

sed 's/version: 1/version: 3/' numerals.yaml | podium apply -f - --wait --timeout 120s
podium rollout explain numerals

exec 3>&-
wait "$traffic"
podium delete deployment numerals --wait
