"""A bounded load generator: HTTP/1.1 requests over kept connections, and how long each took. Standard library only.

    histogram   latencies in buckets of less than one percent; adds up over processes
    requests    one request as bytes
    bodies      inputs made up from what a model says that it takes
    tls         how a server is known by its certificate
    wire        one connection, over TCP, TLS or a Unix socket
    generator   the loop: as fast as it is answered (closed), or at a rate whatever the answers do (open)
    __main__    a process of its own, so that nothing else disturbs it; run by its file, imports no other package
    driver      starts such processes, gives them jobs, adds up what they found
    bounds      how much is allowed, and whom: this machine, or a host that the user answers for

Called by `podium load`, the profiler and the benchmarks. It imports nothing of podium but itself, so that both the
server and the command line may use it.
"""
