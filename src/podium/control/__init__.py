"""Rank 5: the reconciling loop and one module per reconciler. Reads specs, writes statuses.

It meets the API in the store only.
"""
