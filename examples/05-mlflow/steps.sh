#!/bin/sh
# From an MLflow registry. The server must know the registry: MLFLOW_TRACKING_URI when it is started, or a local one.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python train.py "$work"
podium model import digits models:/digits@champion --tracking-uri "sqlite:///$work/mlflow.db" --alias champion
podium model show digits -o json | grep -q accuracy
podium apply -f digits.yaml --wait
podium delete deployment digits --wait
