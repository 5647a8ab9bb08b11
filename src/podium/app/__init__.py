"""Rank 6: settings, logging, wiring and the entry points (`python -m podium.app`). Names the concrete adapters."""
