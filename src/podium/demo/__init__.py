"""`podium demo`: the whole story on real data. Uses the client only, as a user would; carries the load generator."""
