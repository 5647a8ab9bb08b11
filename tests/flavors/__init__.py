"""The frameworks that people bring, with real models; run by `make test-flavors` in an environment of its own."""
