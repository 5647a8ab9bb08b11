"""Asks the gateway once and prints which revision answered. Arguments: address, and `preview` or nothing."""

import json
import os
import sys
import urllib.request

body = json.dumps({"inputs": [{"name": "input", "shape": [1, 10], "datatype": "FP64", "data": [0.01] * 10}]})
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["EXAMPLE_TOKEN"]}
if sys.argv[2:] == ["preview"]:
    headers["x-podium-preview"] = "true"
request = urllib.request.Request(sys.argv[1] + "/v2/models/diabetes/infer", body.encode(), headers)
with urllib.request.urlopen(request, timeout=10) as answer:
    print(answer.headers["x-podium-revision"])
