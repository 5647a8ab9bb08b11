"""Rank 3: pure decisions of what a Deployment or a Rollout does next, and which routes follow from that."""
