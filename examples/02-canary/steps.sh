#!/bin/sh
# A broken version under real traffic: it is taken back, and CI learns it by exit code 10.
set -eu
work=$(mktemp -d)
mkfifo "$work/end"
trap 'exec 3>&- || true; rm -rf "$work"' EXIT

python train.py "$work"
podium model push wine "$work/good.pkl"
podium model push wine "$work/bad.pkl"
podium apply -f wine.yaml --wait

EXAMPLE_TOKEN=$(podium token create wine-traffic --role predict)
export EXAMPLE_TOKEN
gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')
python traffic.py "$gateway" <"$work/end" &
exec 3>"$work/end"

code=0
sed 's/version: 1/version: 2/' wine.yaml | podium apply -f - --wait --timeout 120s || code=$?
echo "exit code $code"
test "$code" -eq 10

podium rollout history wine
podium rollout explain wine
podium get deployment wine
exec 3>&-
wait
podium delete deployment wine --wait
