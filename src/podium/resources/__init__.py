"""Rank 1: specs, statuses, request bodies and errors. Data and validation only; imports nothing of Podium."""
