"""Asks as many users as told, once each, and prints how many met which deployment. Arguments: gateway, users."""

import collections
import json
import os
import sys
import urllib.request

url, users = f"{sys.argv[1]}/v2/models/garden/infer", int(sys.argv[2])
body = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
)
met: collections.Counter[str] = collections.Counter()
for user in range(users):
    headers = {
        "Content-Type": "application/json", "Authorization": "Bearer " + os.environ["EXAMPLE_TOKEN"],
        "x-user": f"user-{user}",
    }  # fmt: skip
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=30) as answer:
        met[answer.headers["x-podium-revision"].rpartition("-")[0]] += 1
print(json.dumps(met))
