"""Rank 3: Python environments for models: requirements resolved into locks, locks made into virtual environments."""
