"""Where replicas run. `port` says what the control plane needs; one package per technology stands beside it.

Called by `control` and `app`. Target `process` is the only one so far.
"""
