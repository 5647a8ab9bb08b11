"""Rank 5: the reconciling loop and one module per reconciler. Reads specs, writes statuses; meets the API in the store only."""
