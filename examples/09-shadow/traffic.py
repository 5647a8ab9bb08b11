"""Asks for one digit after another until its standard input is closed; fails if an answer ever does."""

import json
import os
import sys
import threading
import urllib.request

from sklearn.datasets import load_digits

url, token = sys.argv[1] + "/v2/models/numerals/infer", os.environ["EXAMPLE_TOKEN"]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
digits, count = load_digits().data.tolist(), 0
while not ended.is_set():
    row = digits[count % len(digits)]
    body = json.dumps({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": row}]})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=10) as answer:
        answer.read()
    count += 1
print(f"{count} requests, all answered")
