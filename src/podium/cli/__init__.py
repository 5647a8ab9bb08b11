"""`podium` on the command line: Typer commands over `podium.client`. The server is a process, never an import.

Everything but Typer is imported where it is used, so that `podium --help` and completion answer at once.
"""


def main() -> None:
    """Entry point of the command `podium`."""
    from podium.cli.application import run

    run()
