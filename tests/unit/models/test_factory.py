"""Networks by name: built-in and custom ones."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.core.config import Settings
from tasks.core.errors import InputError
from tasks.core.inference.classifier import trusted_model
from tasks.core.models.factory import build_network, eval_mode, init_network, load_factory, model_code_digests
from tasks.core.pipeline_run import plan_run
from tasks.core.recipes import MODEL_ALIASES, RECIPES, Recipe

PACKAGE = """
from torch import nn
from {name}.parts import width

def network(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.Linear(width, classes))
"""


@pytest.fixture
def custom_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new package of two modules in the current folder."""
    name = f"own_{abs(hash(tmp_path))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "parts.py").write_text("width = 5  # narrow\n")
    (folder / "nets.py").write_text(PACKAGE.format(name=name))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=str)
def test_each_recipes_network_has_a_logit_for_each_class(recipe: Recipe) -> None:
    network = init_network(recipe.model, classes=7, seed=1).eval()
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_initial_weights_follow_from_the_seed_only(recipe: str) -> None:
    model = RECIPES[recipe].model  # type: ignore[index]
    torch.rand(3)
    before = torch.get_rng_state()
    one, again, other = (init_network(model, 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_resnet18_is_torchvisions_with_a_stem_for_small_images() -> None:
    network = build_network("tasks.core.models.resnet:resnet18", 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962
    assert isinstance(network, nn.Module)
    assert network.conv1.weight.shape == (64, 3, 3, 3)


def test_a_custom_network_is_found_in_the_current_folder(custom_package: Path) -> None:
    assert init_network(f"{custom_package.name}.nets:network", 4, seed=1)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def code_of(model: str) -> dict[str, str]:
    """The digests as another process computes them."""
    model_code_digests.cache_clear()
    return model_code_digests(model)


def test_the_code_of_a_custom_network_is_every_file_of_its_package(custom_package: Path) -> None:
    model = f"{custom_package.name}.nets:network"
    digests = code_of(model)
    files = [f"{custom_package.name}/{name}.py" for name in ("__init__", "nets", "parts")]
    assert list(digests) == [*files, "package torch"]
    assert digests["package torch"] == version("torch")

    (custom_package / "parts.py").write_text("# a comment\nwidth = 5\n")
    assert code_of(model) == digests

    (custom_package / "parts.py").write_text("width = 6\n")
    changed = code_of(model)
    assert [name for name in digests if changed[name] != digests[name]] == [f"{custom_package.name}/parts.py"]


def test_the_digests_are_those_of_the_imported_code(custom_package: Path) -> None:
    model = f"{custom_package.name}.nets:network"
    digests = code_of(model)
    (custom_package / "parts.py").write_text("width = 6\n")
    assert model_code_digests(model) == digests


def test_the_digests_are_computed_when_the_run_starts(custom_package: Path) -> None:
    model = f"{custom_package.name}.nets:network"
    plan_run(Settings(model=model))
    (custom_package / "parts.py").write_text("width = 6\n")
    digests = model_code_digests(model)
    assert code_of(model) != digests


@pytest.mark.parametrize(
    "source",
    [
        "from {name}.nets import network",
        "import {name}.nets\nnetwork = {name}.nets.network",
        "from functools import partial\nfrom {name}.nets import network as whole\nnetwork = partial(whole)",
        "def network(classes):\n    from {name} import nets\n    return nets.network(classes)",
    ],
)
def test_modules_imported_from_the_same_folder_are_part_of_the_code(source: str, custom_package: Path) -> None:
    module = f"beside_{custom_package.name}"
    custom_package.with_name(f"{module}.py").write_text(source.format(name=custom_package.name) + "\n")
    digests = code_of(f"{module}:network")
    assert {f"{custom_package.name}/nets.py", f"{custom_package.name}/parts.py"} < set(digests)

    (custom_package / "parts.py").write_text("width = 6\n")
    assert code_of(f"{module}:network") != digests


def test_linked_folders_are_part_of_the_code(custom_package: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "deep.py").write_text("width = 5\n")
    (custom_package / "linked").symlink_to(tmp_path / "linked")
    (custom_package / "again").symlink_to(custom_package)
    model = f"{custom_package.name}.nets:network"
    digests = code_of(model)

    (tmp_path / "linked" / "deep.py").write_text("width = 6\n")

    changed = code_of(model)
    assert [name for name in digests if changed[name] != digests[name]] == [f"{custom_package.name}/linked/deep.py"]


def test_modules_from_other_folders_are_part_of_the_code(custom_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = custom_package.parent / "elsewhere"
    elsewhere.mkdir()
    library = f"library_of_{custom_package.name}"
    (elsewhere / f"{library}.py").write_text("width = 5\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    (custom_package / "parts.py").write_text(f"import json, numpy\nfrom {library} import width\n")
    digests = code_of(f"{custom_package.name}.nets:network")
    assert {name for name in digests if not name.startswith(custom_package.name)} == {
        f"{library}.py",
        "package numpy",
        "package torch",
    }

    (elsewhere / f"{library}.py").write_text("width = 6\n")
    assert code_of(f"{custom_package.name}.nets:network")[f"{library}.py"] != digests[f"{library}.py"]


def test_a_wrapped_factory_includes_the_code_of_its_wrapper() -> None:
    assert {"custom_networks.py", "tasks/core/models/airbench.py: fast"} <= set(code_of("custom_networks:half_as_sure"))


def test_imported_modules_of_the_project_are_part_of_the_code(custom_package: Path) -> None:
    (custom_package / "parts.py").write_text("from tasks.core.models.airbench import AirbenchNet\nwidth = 5\n")
    digests = code_of(f"{custom_package.name}.nets:network")
    assert set(model_code_digests("tasks.core.models.airbench:record")) < set(digests)


def test_a_file_that_is_not_python_has_the_digest_of_its_bytes(custom_package: Path) -> None:
    template = custom_package / "template.py"
    template.write_text("def {{ name }}():\n")
    digests = code_of(f"{custom_package.name}.nets:network")
    template.write_text("def {{ name }}(): # changed\n")
    changed = code_of(f"{custom_package.name}.nets:network")
    assert [name for name in digests if changed[name] != digests[name]] == [f"{custom_package.name}/template.py"]


def test_installed_packages_have_their_version_as_digest() -> None:
    assert code_of("torchvision.models:resnet18") == {"package torchvision": version("torchvision")}


def test_a_network_without_a_code_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"model builtins:int: expected its code in a file, .* got none"):
        model_code_digests("builtins:int")


def test_each_layers_mode_is_restored_after_evaluation() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
    with eval_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("no_such_package:network", "No module named 'no_such_package'"),
        ("custom_networks:no_such", "expected package.module:factory, got a module without 'no_such'"),
        ("custom_networks:no_network", "expected a torch.nn.Module, got str"),
        ("custom_networks:wrong_head", "expected logits [2, 10] for 2 images, got [2, 7]"),
        (
            "custom_networks:WithOtherState",
            "expected only tensors in the state_dict, got dict as _extra_state",
        ),
        ("custom_networks:two_outputs", "expected logits [2, 10] for 2 images, got tuple"),
        ("custom_networks:other_images", "expected a network that takes images [N, 3, 32, 32], got RuntimeError: "),
        (
            "custom_networks:failing_factory",
            "expected a factory that takes the number of classes, got KeyError: 'width'",
        ),
        ("custom_networks:RATE", "expected a factory that takes the number of classes, got TypeError: 'float' object"),
        ("os:getcwd", "expected a factory that takes the number of classes"),
    ],
)
def test_an_unusable_network_is_refused_in_one_line(model: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        init_network(model, 10, seed=1)
    message = str(caught.value)
    assert message.startswith(f"model {model}: expected ")
    assert expected in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def network(:", "got SyntaxError: invalid syntax (parts.py, line 1)"),
        ("width = 1 / 0", "got ZeroDivisionError: division by zero ({folder}/parts.py, line 1)"),
        ("width = nothing", "got NameError: name 'nothing' is not defined ({folder}/parts.py, line 1)"),
    ],
)
def test_an_error_in_a_custom_networks_code_has_its_line(source: str, expected: str, custom_package: Path) -> None:
    (custom_package / "parts.py").write_text(source + "\n")
    with pytest.raises(InputError) as caught:
        init_network(f"{custom_package.name}.nets:network", 10, seed=1)
    assert expected.format(folder=custom_package) in str(caught.value)


def test_built_in_networks_have_a_digest_for_each_symbol() -> None:
    assert list(model_code_digests("tasks.core.models.tutorial_net:Net")) == ["tasks/core/models/tutorial_net.py: Net"]
    assert load_factory("tasks.core.models.tutorial_net:Net").__name__ == "Net"


@pytest.mark.parametrize(("earlier", "name"), MODEL_ALIASES.items())
def test_earlier_model_names_mean_the_same_networks(earlier: str, name: str) -> None:
    stored = RECIPES["tutorial"].model_dump(mode="json") | {"model": earlier}
    assert Recipe.model_validate(stored).model == name
    assert Settings(model=earlier).resolve_recipe().model == name
    assert trusted_model(name, named=earlier) == name
    load_factory(name)
