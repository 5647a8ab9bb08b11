"""Podium's Python SDK: `Client` and `AsyncClient`, the same methods, the same objects as the API.

    from podium.client import Client

    with Client() as podium:
        podium.push("churn", "model.pkl", alias="champion", metrics={"auc": 0.93})
        result = podium.apply(document)
        outcome = podium.wait("churn", generation=result.object["metadata"]["generation"])

Where the server is, and the token, come from the arguments, else from PODIUM_URL and PODIUM_TOKEN, else from the
files that `podium up` leaves in PODIUM_HOME (default: ~/.podium): `connection.json` with "url" and "gateway", and
`admin.token`. Errors are those of `podium.resources.errors`, whatever the server's answer was.

    connection.py   where and with which token           synchronous.py    Client
    effects.py      what an operation asks of its driver  asynchronous.py   AsyncClient
    operations.py   objects, rollouts, tokens, records    publishing.py     push, pull, import
    waiting.py      how a Deployment comes out            watching.py       a watch that goes on after a break
    prediction.py   requests to the gateway               answers.py        problem documents to errors
    profiling.py    how fast a version is

Nothing is done twice: an operation is a generator that yields effects (an HTTP call, a pause, work on files) and is
run by either client.
"""

from podium.client.asynchronous import AsyncClient
from podium.client.connection import Connection
from podium.client.publishing import Progress
from podium.client.synchronous import Client
from podium.client.waiting import RolloutOutcome, RouteOutcome

__all__ = ["AsyncClient", "Client", "Connection", "Progress", "RolloutOutcome", "RouteOutcome"]
