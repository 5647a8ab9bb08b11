#!/bin/sh
# Push, serve, predict, clean up.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python train.py "$work/iris.pkl"
podium model push iris "$work/iris.pkl" --alias champion --metric accuracy=0.97 --version-note "first try"
podium model show iris

podium diff -f iris.yaml
podium apply -f iris.yaml --wait
podium get deployments
podium predict iris --row 5.1,3.5,1.4,0.2
podium logs iris -n 5

# A second push of the same bytes is the same version.
podium model push iris "$work/iris.pkl" --alias champion --metric accuracy=0.97

# What is served cannot be deleted from under it; deployments drain first.
podium delete deployment iris --wait
podium model alias iris champion --remove
podium model delete iris 1
