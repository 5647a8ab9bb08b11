"""PyTorch models on the CPU, in the three forms that need no pickle of the user's.

    exported      a program that torch.export.save wrote (.pt2): inputs and outputs come from its graph
    torchscript   a scripted or traced module (.pt): inputs are the arguments of its forward method, by name
    safetensors   weights, and a class of the folder that they belong to (options class and arguments)

Outputs are the names of a dict, the signature's names, `output`, or `output_0`, `output_1` and so on. BF16 travels as
the protocol's BF16.
"""

import importlib
import importlib.metadata
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium_runtime.errors import ModelUnusable
from podium_runtime.flavors import torch_archive
from podium_runtime.flavors.torch_tensors import datatype_name, named_outputs, prepare, to_numpy, to_torch
from podium_runtime.signature import Signature, TensorSpec, parse_signature
from podium_runtime.tensors import Array

FORMATS = ("exported", "torchscript", "safetensors")


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "TorchModel":
    """Return the module in the file `entry`, read as `options["format"]` says."""
    form = options.get("format")
    if form not in FORMATS:
        raise ModelUnusable(f"pytorch: options.format {form!r} is unknown; known are {', '.join(FORMATS)}")
    torch = prepare(threads)
    path = folder / entry
    if form == "exported":
        torch_archive.check(path)
        program = torch.export.load(path)
        return TorchModel(program.module(), _exported_call(program), _exported_signature(program), form)
    if form == "torchscript":
        module = torch.jit.load(str(path), map_location="cpu")
        return TorchModel(module.eval(), Call(keywords=_script_inputs(module)), None, form)
    module = _module(folder, path, options)
    names = tuple(inspect.signature(module.forward).parameters)
    model = TorchModel(module, Call(keywords=names), _declared_signature(module), form)
    model.outputs = tuple(json.loads(options.get("outputs") or "[]")) or model.outputs
    return model


@dataclass(frozen=True)
class Call:
    """How inputs become arguments: the names of those by position, and of those by name."""

    positional: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()

    def of(self, module: Any, tensors: Mapping[str, Any]) -> Any:
        """Return what the module answers. Inputs of other names are arguments in the order in which they came."""
        if not tensors.keys() <= {*self.positional, *self.keywords}:
            return module(*tensors.values())
        named = {name: tensors[name] for name in self.keywords if name in tensors}
        return module(*[tensors[name] for name in self.positional], **named)


class TorchModel:
    """One module in evaluation mode."""

    columns: Sequence[str] | None = None

    def __init__(self, module: Any, call: Call, signature: Signature | None, form: str) -> None:
        # A class promises it by declaring a leading -1 (in evaluation mode); a graph's free first axis may be anything.
        self.rows_independent: bool | None = True if form == "safetensors" else None
        self._module = module
        self._call = call
        self._signature = signature
        self._specs = {spec.name: spec for spec in signature.inputs} if signature else {}
        self.outputs = tuple(spec.name for spec in signature.outputs) if signature else ()
        """Names for what the module answers without names."""
        self.properties: Mapping[str, Any] = {"format": form}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        import torch

        tensors = {name: to_torch(array, self._specs.get(name)) for name, array in inputs.items()}
        with torch.inference_mode():
            named = named_outputs(self._call.of(self._module, tensors), self.outputs)
            return {name: to_numpy(value) for name, value in named.items() if not wanted or name in wanted}

    def infer_signature(self) -> Signature | None:
        return self._signature

    def framework(self) -> dict[str, str]:
        # Of the wheel's own name: builds for one processor carry a local version (2.13.0+cpu).
        return {name: importlib.metadata.version(name) for name in ("torch", "numpy")}


def _module(folder: Path, path: Path, options: Mapping[str, Any]) -> Any:
    """Return the user's class with its weights, in evaluation mode."""
    import torch
    from safetensors.torch import load_file

    named = options.get("class")
    module_name, _, class_name = named.partition(":") if isinstance(named, str) else ("", "", "")
    if not module_name or not class_name:
        raise ModelUnusable("pytorch: options.class must name a class as module:Class")
    arguments = json.loads(options.get("arguments") or "{}")
    sys.path.insert(0, str(folder))
    made: Any = getattr(importlib.import_module(module_name), class_name, None)
    if not isinstance(made, type) or not issubclass(made, torch.nn.Module):
        raise ModelUnusable(f"pytorch: {module_name} has no torch.nn.Module called {class_name}")
    module = made(**arguments)
    weights = load_file(path)
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelUnusable(f"pytorch: {path.name} does not fit {class_name}: {error}") from error
    return module.eval()


def _declared_signature(module: Any) -> Signature | None:
    declared = getattr(module, "signature", None)
    try:
        return None if declared is None else parse_signature(declared)
    except ValueError as error:
        raise ModelUnusable(f"pytorch: {error}") from error


def _script_inputs(module: Any) -> tuple[str, ...]:
    """Return the names of forward's arguments, the first of which is the module itself."""
    return tuple(str(argument.name) for argument in module.forward.schema.arguments)[1:]


def _exported_call(program: Any) -> Call:
    """Return how the program is called: as it was when it was exported.

    torch.export names the graph's inputs after the arguments of forward, those by position first.
    """
    names = [str(name) for name in program.graph_signature.user_inputs]
    spec = program.call_spec.in_spec
    # PyTorch 2.9 made the attribute a method.
    arguments, keywords = spec.children() if hasattr(spec, "children") else spec.children_specs
    if arguments.num_leaves + len(keywords.context) != len(names):
        raise ModelUnusable(
            "pytorch: the program takes lists or dicts of tensors; export it with tensors alone"
        )
    return Call(tuple(names[: arguments.num_leaves]), tuple(names[arguments.num_leaves :]))


def _exported_signature(program: Any) -> Signature | None:
    """Return inputs and outputs as the graph tells them; None where one of them is no tensor.

    A size is -1 where the export was told that it is dynamic.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    inputs = [_spec(str(name), nodes.get(str(name))) for name in program.graph_signature.user_inputs]
    names = [str(name) for name in program.graph_signature.user_outputs]
    outputs = [
        _spec(shown, nodes.get(name))
        for shown, name in zip(_output_names(program, len(names)), names, strict=True)
    ]
    if not inputs or any(spec is None for spec in inputs):
        return None
    known = [spec for spec in outputs if spec is not None]
    return Signature(
        tuple(spec for spec in inputs if spec is not None),
        tuple(known) if len(known) == len(outputs) else (),
    )


def _output_names(program: Any, count: int) -> list[str]:
    """Return the keys of the dict that forward returns, or our own names."""
    context = program.call_spec.out_spec.context
    if program.call_spec.out_spec.type is dict and isinstance(context, list) and len(context) == count:
        return [str(key) for key in context]
    return list(named_outputs([None] * count if count != 1 else None, ()))


def _spec(name: str, node: Any) -> TensorSpec | None:
    value = None if node is None else node.meta.get("val")
    datatype = datatype_name(getattr(value, "dtype", None))
    if value is None or datatype is None:
        return None
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(name, datatype, shape)
