"""Asks for a prediction in one workspace and prints the status. Arguments: the gateway's address, the workspace."""

import json
import os
import sys
import urllib.error
import urllib.request

url = f"{sys.argv[1]}/ws/{sys.argv[2]}/v2/models/score/infer"
body = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
)
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["EXAMPLE_TOKEN"]}
try:
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=10) as answer:
        print(answer.status)
except urllib.error.HTTPError as refused:
    print(refused.code)
