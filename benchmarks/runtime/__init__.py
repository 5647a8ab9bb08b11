"""The model server beside MLServer: requests per second and latencies. `python -m benchmarks.runtime`, `... .soak`."""
