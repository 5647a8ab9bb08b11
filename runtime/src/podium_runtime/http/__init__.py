"""The HTTP transport: connections over httptools, routes, and one skin per protocol over `core`.

`server` (of the package above) opens `http.listener.HttpServer`. `connection` reads requests and writes answers,
`exchange` is one request with its answer, `listener` holds what connections share and routes, `asking` takes a request
to the model and its answer back. The skins: `v2` (Open Inference Protocol), `mlflow`, `kserve_v1`, and `grpc_bridge`,
behind which stands the package `grpc`.
"""
