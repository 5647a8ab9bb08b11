"""The environment variables that Podium knows. `doctor` names those that it does not; docs/cli.md describes each."""

SERVER_VARIABLES = (
    "PODIUM_HOME",
    "PODIUM_DATABASE_URL",
    "PODIUM_BLOBS_URL",
    "PODIUM_API_HOST",
    "PODIUM_API_PORT",
    "PODIUM_GATEWAY_HOST",
    "PODIUM_GATEWAY_PORT",
    "PODIUM_GATEWAY_NAME",
    "PODIUM_GATEWAY_TOKENS",
    "PODIUM_GATEWAY_METRICS_PORT",
    "PODIUM_GATEWAY_NOTICE",
    "PODIUM_GATEWAY_MEMORY",
    "PODIUM_GATEWAY_RECORD",
    "PODIUM_GATEWAY_RECORD_SIZE",
    "PODIUM_GATEWAY_RECORD_KEPT",
    "PODIUM_TLS_CERT",
    "PODIUM_TLS_KEY",
    "PODIUM_API_TLS_CERT",
    "PODIUM_API_TLS_KEY",
    "PODIUM_GATEWAY_TLS_CERT",
    "PODIUM_GATEWAY_TLS_KEY",
    "PODIUM_SERVER_CA",
    "PODIUM_ENVIRONMENTS_LIMIT",
    "PODIUM_PROGRAM_FOLDERS",
    "PODIUM_WORKERS",
    "PODIUM_IMPORT_FROM",
    "PODIUM_MIGRATIONS",
)
CLIENT_VARIABLES = ("PODIUM_HOME", "PODIUM_URL", "PODIUM_TOKEN", "PODIUM_GATEWAY_URL", "PODIUM_CA_FILE")
INTERNAL_VARIABLES = (
    "PODIUM_PROCESS_TOKEN",
    "PODIUM_RECORDS",
    # What `podium gateway run` tells the gateway: which server, and its very certificate.
    "PODIUM_SERVER_URL",
    "PODIUM_SERVER_CERTIFICATE",
    # What a server of the user's choice is told: docs/other-servers.md.
    "PODIUM_FD",
    "PODIUM_HOST",
    "PODIUM_MODEL",
    "PODIUM_NAME",
    "PODIUM_PORT",
    "PODIUM_VERSION",
)
"""Set by Podium for the processes that it starts, never by a person."""
KNOWN = frozenset(SERVER_VARIABLES + CLIENT_VARIABLES + INTERNAL_VARIABLES)
