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
    "PODIUM_ENVIRONMENTS_LIMIT",
    "PODIUM_WORKERS",
    "PODIUM_IMPORT_FROM",
    "PODIUM_MIGRATIONS",
)
CLIENT_VARIABLES = ("PODIUM_HOME", "PODIUM_URL", "PODIUM_TOKEN", "PODIUM_GATEWAY_URL")
INTERNAL_VARIABLES = ("PODIUM_PROCESS_TOKEN",)
"""Set by Podium for its own processes, never by a person."""
KNOWN = frozenset(SERVER_VARIABLES + CLIENT_VARIABLES + INTERNAL_VARIABLES)
