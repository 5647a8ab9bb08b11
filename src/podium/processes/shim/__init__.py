"""The shim: the small process between Podium and one replica, which keeps it shut in, logged and answered for.

`processes.supervision` starts it as `python -I -S <this folder> SPEC.json`. It runs on the standard library alone, on
any Python from 3.11, and imports everything at its start: an upgrade of Podium under a running shim changes nothing.
Modules here import each other relatively, because then the folder is no part of `podium` but a package of its own.

    __main__    entry
    supervise   the loop: start, watch, stop, clean up, write the state
    dormancy    listening for a replica that starts with its first request
    family      the replica's process and everything it started: ending it, weighing it
    confine     what the child does to itself between fork and exec; calls `landlock` and `seccomp`
    landlock    file, TCP, signal and abstract-socket rules
    seccomp     system calls that are refused
    rotation    the log file, cut into pieces of limited size
    state       state.json
"""
