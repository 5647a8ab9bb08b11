"""Rank 4: where replicas run. `port.py` says what the control plane needs; one package per technology beside it."""
