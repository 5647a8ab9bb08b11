"""Pure: what to serve -> Envoy's configuration as bytes. Called by `loader` and `envoy_process`; does no I/O.

`document` names a content by its hash, `clusters` and `routes` make one fragment per arm or entry, `access` the token
filters, `listener` and `bootstrap` what hardly ever changes, `problem` the bodies of Envoy's own answers. `rules` makes
the routes of a Route, and `traffic` puts on them what it declares beyond its targets, one module for each thing:
`adaptive`, `attempts`, `cascade`, `fallback`, `limits` and `mirror`.
"""
