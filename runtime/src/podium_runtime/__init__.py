"""The model server of Podium: one process serves one replica of one model revision.

Started as `python -m podium_runtime serve CONFIG.json`. It stands alone in the model's own virtual environment and
never imports `podium`. This file stays empty of imports, because the sizes of native thread pools must be set in the
environment before numpy is first imported (see `__main__`).
"""

__version__ = "0.1.0"
