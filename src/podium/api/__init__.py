"""Rank 5: the HTTP API. It authenticates, authorises, validates, writes specs and reads statuses; it decides nothing.

`podium.app` calls `bootstrap.bootstrap(...)`, `create.create_app(services)` and `create.end_watches(app)`; `services`
says what it must bring. Nothing else is public.
"""
