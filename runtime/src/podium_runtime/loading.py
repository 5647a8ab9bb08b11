"""From verified bytes to a warm model.

`server` runs `load` and `warm_up` in the model thread before the replica becomes ready; `inspection` uses
`load` alone.
"""

import logging
import traceback
from dataclasses import dataclass

from podium_runtime.config import Config
from podium_runtime.errors import ModelUnusable, RequestError, describe_exception
from podium_runtime.flavors import Model, load_model
from podium_runtime.logs import frames
from podium_runtime.manifest import Manifest, read_manifest, verify_files
from podium_runtime.messages import request_from_document
from podium_runtime.signature import InputCheck, Signature, example_inputs, parse_signature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A loaded model with its flavor's name and the signature it is served with, None where there is none."""

    model: Model
    flavor: str
    signature: Signature | None


def load(config: Config) -> Loaded:
    """Return the model after proving that every byte is what was pushed.

    Raises DigestMismatch before anything of the model is opened, and ModelUnusable when it does not load or its
    signature is unreadable. A signature in the manifest wins over what the model's own files tell.
    """
    manifest = read_manifest(config.manifest_path, config.manifest_digest)
    verify_files(config.model_path, manifest)
    log.info("files verified", extra={"files": len(manifest.files), "digest": config.manifest_digest})
    try:
        model = load_model(
            manifest.flavor, config.model_path.absolute(), manifest.entry, manifest.options, config.threads
        )
        signature = _signature(manifest, model)
    except ModelUnusable:
        raise
    except BaseException as error:
        # Whatever a model's import does, SystemExit included, ends as one clear error.
        detail = "".join(traceback.format_exception(error))
        raise ModelUnusable(f"the model failed to load: {describe_exception(error)}\n{detail}") from error
    return Loaded(model, manifest.flavor, signature)


def _signature(manifest: Manifest, model: Model) -> Signature | None:
    if manifest.signature is None:
        return model.infer_signature()
    try:
        return parse_signature(manifest.signature)
    except ValueError as error:
        raise ModelUnusable(f"the manifest's signature is unreadable: {error}") from error


def warm_up(config: Config, loaded: Loaded) -> None:
    """Call the model as often as the configuration says.

    With a declared example, any failure raises ModelUnusable. Without one a row of zeros is made up from the
    signature; a model that refuses it is logged and served all the same, because made-up data need not suit it.
    """
    if config.warmup_example is not None:
        _warm_up_declared(config, loaded)
        return
    if loaded.signature is None:
        log.info("no warm-up: the model has no signature and no example was declared")
        return
    try:
        inputs = example_inputs(loaded.signature)
        for _ in range(config.warmup_requests):
            loaded.model.predict(inputs, None)
    except BaseException as error:
        # All of them, as in `calling`: a panic of a native library on made-up data is no reason not to serve.
        log.warning(
            "the made-up warm-up input does not suit the model; declare warmup.example to warm it up",
            extra={"exception": type(error).__name__, "frames": frames(error.__traceback__)},
        )


def _warm_up_declared(config: Config, loaded: Loaded) -> None:
    check = InputCheck(loaded.signature, loaded.model.columns)
    try:
        request = request_from_document(config.warmup_example)
        inputs, _ = check.check_inputs(request.inputs)
        wanted = check.check_outputs(request.outputs)
        for _ in range(config.warmup_requests):
            loaded.model.predict(inputs, wanted)
    except RequestError as error:
        raise ModelUnusable(f"warmup.example is refused by the model's signature: {error.message}") from error
    except BaseException as error:
        raise ModelUnusable(
            f"the model failed on its declared example: {describe_exception(error)}"
        ) from error
