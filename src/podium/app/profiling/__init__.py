"""Measures one replica of a version: how fast, how many rows at once, how much memory.

    profiler   one profile from request to result; the API's `Profiler`
    replica    the replica that is measured, in its version's environment and box
    inputs     bodies of requests: given rows, the model's own example, or made up from the signature

The requests are asked by `podium.load`, in a process of its own so that the server's threads do not disturb it.
What to measure next and what to propose is `planning.profiles`.
"""
