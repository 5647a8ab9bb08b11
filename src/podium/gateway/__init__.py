"""Rank 4: routes -> Envoy. What to serve becomes files, Envoy loads them, and what it loaded is reported.

`agent` runs it, started by `podium.app` through `main.run`. `fleet` turns resources into route entries (with
`planning.routing`), `render` turns entries into Envoy's resources, `loader` gets them loaded in a safe order and
finds a guilty entry, `envoy_process` keeps Envoy alive, `stats` and `admin` read from it, `feed` and `report` speak
to the server.
"""
