"""The autoscaler by simulation: `python -m benchmarks.autoscaling`."""
