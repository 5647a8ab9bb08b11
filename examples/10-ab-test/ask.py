"""Forty users ask five times each; prints how many met which revision. Fails if one of them met two."""

import json
import os
import sys
import urllib.request
from collections import Counter

url = sys.argv[1] + "/v2/models/scans/infer"
body = json.dumps({"inputs": [{"name": "input", "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]})
met: dict[int, set[str]] = {}
for count in range(200):
    user = count % 40
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["EXAMPLE_TOKEN"]}
    request = urllib.request.Request(url, body.encode(), headers | {"x-user": f"user-{user}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        met.setdefault(user, set()).add(answer.headers["x-podium-revision"])
assert all(len(revisions) == 1 for revisions in met.values()), met
print(
    ", ".join(f"{name}: {count} users" for name, count in Counter(min(one) for one in met.values()).items())
)
