"""`inspect`: loads a model and tells its signature and the versions of its framework.

Called by `__main__`, in the sandbox, when a version is pushed: nobody else may unpickle a model to look at it.
"""

import platform
import traceback
from typing import Any

from podium_runtime.config import Config
from podium_runtime.loading import load


def inspect_model(config: Config) -> dict[str, Any]:
    """Return `{"signature": ..., "framework": {...}}`; raises what `loading.load` raises."""
    loaded = load(config)
    return {
        "signature": loaded.signature.as_document() if loaded.signature else None,
        "framework": {"python": platform.python_version(), **loaded.model.framework()},
    }


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return `{"error": {"type", "message", "traceback"}}`, the cause's where the error wraps one."""
    cause = error.__cause__ or error
    return {
        "error": {
            "type": type(cause).__name__,
            "message": str(error).partition("\n")[0],
            "traceback": "".join(traceback.format_exception(cause)),
        }
    }
