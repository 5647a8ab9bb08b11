"""`python -m podium.cli`: the command `podium`, where it is not on the path."""

from podium.cli import main

if __name__ == "__main__":
    main()
