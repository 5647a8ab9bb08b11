"""Podium: an AI model deployment orchestrator."""

__version__ = "0.1.0"
