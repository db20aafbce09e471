"""The training recipes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tasks.core.frozen_model import FrozenModel

RecipeName = Literal["tutorial", "fast", "record", "resnet18"]
TestAugmentation = Literal["none", "flip", "flip-and-shift"]

MODEL_ALIASES = {  # earlier names, which stored recipes and commands may still use
    "tasks.core.model:Net": "tasks.core.models.tutorial_net:Net",
    "tasks.core.whitened:fast": "tasks.core.models.airbench:fast",
    "tasks.core.whitened:record": "tasks.core.models.airbench:record",
    "tasks.core.resnet:resnet18": "tasks.core.models.resnet:resnet18",
}


def resolve_model_alias(model: str) -> str:
    """The current name of a network."""
    return MODEL_ALIASES.get(model, model)


class Recipe(FrozenModel):
    """A training recipe: with the dataset, the seed and the device it determines the weights."""

    name: RecipeName
    model: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
            description="The network, as package.module:factory; the factory receives the number of classes.",
        ),
        AfterValidator(resolve_model_alias),
    ]
    optimizer: Literal["sgd", "muon"] = Field(
        "sgd", description="The optimizer: sgd, or muon for convolution filters and sgd for all other weights."
    )
    epochs: int = Field(ge=1, le=500, description="Passes over the training images.")
    steps: int | None = Field(None, ge=1, description="Maximum number of training steps, if the epochs have more.")
    batch_size: int = Field(ge=1, le=10_000, description="Images per training step, over all devices.")
    learning_rate: float = Field(
        gt=0, le=10, description="Peak learning rate; with muon, that of the convolution filters."
    )
    momentum: float = Field(ge=0, lt=1, description="Momentum; with muon, that of the convolution filters.")
    nesterov: bool = Field(False, description="Use Nesterov momentum.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay.")
    schedule: Literal["constant", "linear", "one-cycle"] = Field(
        "constant",
        description="Learning rate schedule: constant, linear (down to zero), or one-cycle (up, then down).",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    flip: Literal["none", "random", "alternating"] = Field(
        "none", description="Mirroring of training images: none, random, or alternating (in every other epoch)."
    )
    shift: int = Field(0, ge=0, le=16, description="Maximum random shift of training images, in pixels per direction.")
    precision: Literal["float32", "auto"] = Field(
        "float32", description="float32, or auto: bfloat16 and channels-last on devices where they are fast."
    )
    compile: Literal["never", "auto"] = Field(
        "never", description="never, or auto: compile the network on a single GPU if a C compiler is installed."
    )
    test_augmentation: TestAugmentation = Field(
        "none", description="Views of a test image to average over: none, flip, or flip-and-shift."
    )


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
    # The best accuracy in the time of the tutorial's script on the same two cores.
    "fast": Recipe(name="fast", model="tasks.core.models.airbench:fast", epochs=5, **WHITENED),
    # After https://github.com/KellerJordan/cifar10-airbench, the speed record for 94% accuracy on a GPU.
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

BUILT_IN_MODELS = {recipe.model for recipe in RECIPES.values()}
