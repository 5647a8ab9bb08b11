"""What the gateway costs a request. See `__main__`."""
