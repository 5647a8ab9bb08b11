"""The commands, one module per noun. Each has `register(app)`, or `build()` where it is a group of its own."""
