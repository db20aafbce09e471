"""Networks by the name that a recipe gives them, `package.module:factory`: ours, and one's own."""

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
    """A network that is shown training images [N, 3, 32, 32] before its first step, as one that whitens them needs."""

    def prepare_on_training_images(self, inputs_nchw: Tensor) -> None: ...


def init_network(model: str, classes: int, seed: int) -> nn.Module:
    """A network with first weights that follow from the seed alone; the caller's random state stays as it was."""
    with fixed_seed(seed):
        return build_network(model, classes)


def build_network(model: str, classes: int) -> nn.Module:
    """A network for [N, 3, 32, 32] normalized images that gives logits [N, classes]; InputError if it does not."""
    factory = load_factory(model)
    with model_errors(model, "a factory that takes the number of classes"):
        network = factory(classes)
    if not isinstance(network, nn.Module):
        raise InputError(f"model {model}: expected it to make a torch.nn.Module, got {type(network).__name__}")
    with model_errors(model, "it to take images [N, 3, 32, 32]"), eval_mode(network):
        logits = network(torch.zeros(2, 3, 32, 32))
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != [2, classes]:
        raise InputError(f"model {model}: expected logits {[2, classes]} for 2 images, got {found}")
    others = [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(f"model {model}: expected a state_dict of tensors alone, got something else as {others[0]}")
    return network


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Have a network answer without gradients and as after training; then each layer is in the mode it was in."""
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
    """The factory that a name means, imported from where Python finds it or from the current folder."""
    module, _, name = model.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    with model_errors(model, "package.module:factory"):
        found = import_module(module)
    factory: Factory | None = getattr(found, name, None)
    if factory is None:
        raise InputError(f"model {model}: expected package.module:factory, got a module that has no {name!r}")
    return factory


@cache
def model_code_digests(model: str) -> dict[str, str]:
    """The digests of a network's code as it was when first asked for: ours symbol by symbol, one's own by its files.

    One's own is what holds the name, and what holds the factory if that comes from elsewhere.
    """
    factory = load_factory(model)
    homes = {model.partition(":")[0], getattr(factory, "__module__", None) or type(factory).__module__}
    own = {home for home in homes if not home.startswith(f"{PACKAGE}.")}
    if not own:
        return code_digests(factory)
    found = user_code_digests(own)
    if not found:
        raise InputError(f"model {model}: expected its code in a file, by which a change of it is known, got none")
    return found
