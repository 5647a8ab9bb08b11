"""Sends requests, a third of them with a missing measurement, until its standard input is closed."""

import json
import os
import sys
import threading
import urllib.error
import urllib.request

ROW = [13.2, 1.78, 2.14, 11.2, 100.0, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050.0]
url, token = sys.argv[1] + "/v2/models/wine/infer", os.environ["EXAMPLE_TOKEN"]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
count = 0
while not ended.is_set():
    count += 1
    row = [None, *ROW[1:]] if count % 3 == 0 else ROW
    body = json.dumps({"inputs": [{"name": "input", "shape": [1, 13], "datatype": "FP64", "data": row}]})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body.encode(), headers), timeout=10
        ) as answer:
            answer.read()
    except urllib.error.HTTPError:
        pass  # the candidate's own failures: the canary is there to see them
