#!/bin/sh
# A folder with a podium.yaml that names a class.
set -eu
podium model push sentiment model
podium apply -f sentiment.yaml --wait
podium predict sentiment --data '{"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a great day", "bad news"]}]}' -o json
podium model pull sentiment 1 pulled-model
cmp model/sentiment.py pulled-model/sentiment.py
rm -r pulled-model
podium model verify sentiment 1
podium delete deployment sentiment --wait
