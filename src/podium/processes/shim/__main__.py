"""Entry of the shim. Run as a folder by the Python interpreter, it is no package yet: this makes it one."""

import importlib
import sys
import types
from pathlib import Path

package = types.ModuleType("podium_shim")
package.__path__ = [str(Path(__file__).resolve().parent)]
sys.modules["podium_shim"] = package
sys.exit(importlib.import_module("podium_shim.supervise").main(sys.argv))
