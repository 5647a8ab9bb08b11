#!/bin/sh
# The new version first answers copies of requests: nobody meets one that answers too differently.
set -eu
work=$(mktemp -d)
mkfifo "$work/end"
trap 'exec 3>&- || true; rm -rf "$work"' EXIT

python train.py "$work"
podium model push digits "$work/first.pkl"
podium model push digits "$work/mixed-up.pkl"
podium model push digits "$work/better.pkl"
podium apply -f digits.yaml --wait

EXAMPLE_TOKEN=$(podium token create digits-traffic --role predict)
export EXAMPLE_TOKEN
gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')
python traffic.py "$gateway" <"$work/end" &
traffic=$!
exec 3>"$work/end"

sed 's/version: 1/version: 2/' digits.yaml | podium diff -f - || true
code=0
sed 's/version: 1/version: 2/' digits.yaml | podium apply -f - --wait --timeout 120s || code=$?
test "$code" -eq 10
podium rollout explain digits

sed 's/version: 1/version: 3/' digits.yaml | podium apply -f - --wait --timeout 120s
podium rollout explain digits

exec 3>&-
wait "$traffic"
podium delete deployment digits --wait
