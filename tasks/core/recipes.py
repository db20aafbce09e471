"""Recipes: how to train, as data."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.core.frozen_model import FrozenModel

RecipeName = Literal["tutorial", "fast", "record", "resnet18"]
TestAugmentation = Literal["none", "flip", "flip-and-shift"]


class Recipe(FrozenModel):
    """How to train: all that the weights depend on beside the dataset, the seed and the machine."""

    name: RecipeName
    model: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
            description="The network, as package.module:factory; the factory takes the number of classes.",
        ),
    ]
    optimizer: Annotated[
        Literal["sgd", "muon"],
        Field(description="What updates the weights: sgd, or muon for filters and sgd for the rest."),
    ] = "sgd"
    epochs: Annotated[int, Field(ge=1, le=500, description="Passes over the training images.")]
    steps: Annotated[int | None, Field(ge=1, description="Training steps at the most, where the epochs have more.")] = (
        None
    )
    batch_size: Annotated[int, Field(ge=1, le=10_000, description="Images in a training step, over all devices.")]
    learning_rate: Annotated[
        float,
        Field(gt=0, le=10, description="The optimizer's largest step size; with muon that of filters alone."),
    ]
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="How much of its last direction the optimizer keeps; with muon for filters."),
    ]
    nesterov: Annotated[bool, Field(description="Whether momentum looks ahead.")] = False
    weight_decay: Annotated[float, Field(ge=0, le=1, description="How strongly weights are drawn to zero.")] = 0.0
    schedule: Annotated[
        Literal["constant", "linear", "one-cycle"],
        Field(description="The learning rate over time: constant, down to zero, or first up for a fifth of all steps."),
    ] = "constant"
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="The share of certainty taken off a label.")] = 0.0
    flip: Annotated[
        Literal["none", "random", "alternating"],
        Field(description="Whether images are mirrored at random, or each one in every other epoch."),
    ] = "none"
    shift: Annotated[int, Field(ge=0, le=16, description="By how many pixels at most images are shifted.")] = 0
    precision: Annotated[
        Literal["float32", "auto"],
        Field(description="float32, or auto: bfloat16 and channels-last where the device is fast in them."),
    ] = "float32"
    compile: Annotated[
        Literal["never", "auto"],
        Field(
            description="never, or auto: the network is compiled for one GPU, where a compiler is found; that takes "
            "half a minute the first time and some seconds later, and a fifth off each step of record."
        ),
    ] = "never"
    test_augmentation: Annotated[
        TestAugmentation,
        Field(
            description="Whether a test image is asked mirrored too, and shifted to each corner; answers are averaged."
        ),
    ] = "none"


WHITENED: dict[str, Any] = {
    "optimizer": "muon",
    "batch_size": 500,
    "learning_rate": 0.12,
    "momentum": 0.6,
    "nesterov": True,
    "weight_decay": 1e-3,
    "schedule": "linear",
    "label_smoothing": 0.2,
    "flip": "alternating",
    "shift": 2,
    "precision": "auto",
    "test_augmentation": "flip-and-shift",
}

RECIPES: dict[RecipeName, Recipe] = {
    # https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html
    "tutorial": Recipe(
        name="tutorial",
        model="tasks.core.models.tutorial_net:Net",
        epochs=2,
        batch_size=4,
        learning_rate=0.001,
        momentum=0.9,
    ),
    # The best accuracy within the time that the tutorial's script takes on the same two cores.
    "fast": Recipe(name="fast", model="tasks.core.models.airbench:fast", epochs=5, **WHITENED),
    # After https://github.com/KellerJordan/cifar10-airbench, which reaches 94% in the least time on a GPU.
    "record": Recipe(
        name="record",
        model="tasks.core.models.airbench:record",
        epochs=8,
        **WHITENED | {"batch_size": 2000, "learning_rate": 0.24, "weight_decay": 4e-3},
    ),
    # The usual baseline, after https://github.com/kuangliu/pytorch-cifar.
    "resnet18": Recipe(
        name="resnet18",
        model="tasks.core.models.resnet:resnet18",
        epochs=60,
        batch_size=256,
        learning_rate=0.2,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="one-cycle",
        label_smoothing=0.1,
        flip="random",
        shift=4,
        precision="auto",
    ),
}

OUR_MODELS = {recipe.model for recipe in RECIPES.values()}  # the networks whose code comes with the project
