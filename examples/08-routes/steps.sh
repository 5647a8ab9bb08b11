#!/bin/sh
# A public name over two deployments: rules, users that stay where they are, a limit, a way out.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python ../01-first-model/train.py "$work/first.pkl"
python ../01-first-model/train.py "$work/second.pkl" 0.5
podium model push flowers "$work/first.pkl"
podium model push flowers "$work/second.pkl"
podium apply -f deployments.yaml --wait
podium apply -f route.yaml --wait
podium get routes

# Who would answer, and why; nothing is sent.
podium route test garden -H x-tester:yes | grep 'flowers-next'
podium route test garden -H x-user:user-7
podium predict garden --data '{"input": [[5.1, 3.5, 1.4, 0.2]]}'

gateway=$(podium status -o json | python -c 'import json,sys; print(json.load(sys.stdin)["gateway"]["url"])')
EXAMPLE_TOKEN=$(podium token create garden-app --role predict)
export EXAMPLE_TOKEN
python ask.py "$gateway" 200 >"$work/before"
# More of the users: those who met the newer model go on doing so.
sed 's/weight: 90/weight: 50/; s/weight: 10}/weight: 50}/' route.yaml >"$work/route.yaml"
podium apply -f "$work/route.yaml" --wait
python ask.py "$gateway" 200 >"$work/after"
cat "$work/before" "$work/after"
python - "$work/before" "$work/after" <<'CHECK'
import json, sys
before, after = (json.load(open(path)) for path in sys.argv[1:])
assert 4 <= before["flowers-next"] <= 45, before
assert 60 <= after["flowers-next"] <= 140, after
CHECK

podium delete route garden
podium delete deployment flowers --wait
podium delete deployment flowers-next --wait
