"""Python environments for models: requirements resolved into locks, locks made into virtual environments.

    uv           `Environments`, the public face; the only module that imports uv
    locks        requirements of a model -> a lock with hashes
    building     one environment, made from its lock
    installer    uv as a program, and the interpreters of this machine
    consistency  does everything that is installed find what it requires

Called by the app. Nothing here ever runs an interpreter on packages that were installed: a package can carry code that
runs when an interpreter starts, and that belongs into the sandbox.
"""
