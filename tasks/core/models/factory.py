"""Networks by name, `package.module:factory`: built-in and custom ones."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tasks.core.errors import InputError
from tasks.core.models.errors import model_errors
from tasks.core.runtime.core_code import PACKAGE, code_digests
from tasks.core.runtime.seeding import fixed_seed
from tasks.core.runtime.user_code import user_code_digests

Factory = Callable[[int], nn.Module]


@runtime_checkable
class NeedsPreparation(Protocol):
    """A network that computes something from training images [N, 3, 32, 32] before the first step."""

    def prepare_on_training_images(self, inputs_nchw: Tensor) -> None: ...


def init_network(model: str, classes: int, seed: int) -> nn.Module:
    """A network with initial weights from the seed; the global random state is left alone."""
    with fixed_seed(seed):
        return build_network(model, classes)


def build_network(model: str, classes: int) -> nn.Module:
    """A network for normalized images [N, 3, 32, 32]; raises InputError unless it returns logits [N, classes]."""
    factory = load_factory(model)
    with model_errors(model, "a factory that takes the number of classes"):
        network = factory(classes)
    if not isinstance(network, nn.Module):
        raise InputError(f"model {model}", expected="a torch.nn.Module", got=type(network).__name__)
    with model_errors(model, "a network that takes images [N, 3, 32, 32]"), eval_mode(network):
        logits = network(torch.zeros(2, 3, 32, 32))
    output = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if output != [2, classes]:
        raise InputError(f"model {model}", expected=f"logits {[2, classes]} for 2 images", got=str(output))
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            got = f"{type(value).__name__} as {name}"
            raise InputError(f"model {model}", expected="only tensors in the state_dict", got=got)
    return network


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients; afterwards each layer is in its previous mode."""
    training = [module for module in network.modules() if module.training]
    try:
        with torch.no_grad():
            network.eval()
            yield
    finally:
        for module in training:
            module.training = True


@cache
def load_factory(model: str) -> Factory:
    """The factory with this name, imported from Python's path or the current folder."""
    module, _, name = model.partition(":")
    current_folder = str(Path.cwd())
    if current_folder not in sys.path:
        sys.path.append(current_folder)
    with model_errors(model, "package.module:factory"):
        imported = import_module(module)
    factory: Factory | None = getattr(imported, name, None)
    if factory is None:
        raise InputError(f"model {model}", expected="package.module:factory", got=f"a module without {name!r}")
    return factory


@cache
def model_code_digests(model: str) -> dict[str, str]:
    """The digests of a network's code at the first call: by symbol for built-in networks, by file for custom ones.

    Custom code is the module in the name, and the module that defines the factory if that is another one.
    """
    factory = load_factory(model)
    modules = {model.partition(":")[0], getattr(factory, "__module__", None) or type(factory).__module__}
    custom = {module for module in modules if not module.startswith(f"{PACKAGE}.")}
    if not custom:
        return code_digests(factory)
    digests = user_code_digests(custom)
    if not digests:
        raise InputError(f"model {model}", expected="its code in a file, so that changes are detected", got="none")
    return digests
