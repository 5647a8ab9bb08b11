"""The model server of Podium: one process serves one replica of one model revision.

Started as `python -m podium_runtime serve CONFIG.json`. It stands alone in the model's own virtual environment and
never imports `podium`. This file imports nothing that imports numpy, because the sizes of native thread pools must be
set in the environment before that (see `__main__`).

A model's own code may import `InvalidInput`, by which it refuses an input.
"""

from podium_runtime.errors import InvalidInput

__all__ = ["InvalidInput", "__version__"]

__version__ = "0.1.0"
