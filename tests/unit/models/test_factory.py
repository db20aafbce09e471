"""Networks by name: the recipes' and one's own."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.core.config import Settings
from tasks.core.errors import InputError
from tasks.core.models.factory import build_network, eval_mode, init_network, load_factory, model_code_digests
from tasks.core.pipeline import training_of
from tasks.core.recipes import RECIPES, Recipe

PACKAGE = """
from torch import nn
from {name}.parts import width

def network(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.Linear(width, classes))
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two modules in the folder where the command is started; every test has one of its own."""
    name = f"own_{abs(hash(tmp_path))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "parts.py").write_text("width = 5  # narrow\n")
    (folder / "nets.py").write_text(PACKAGE.format(name=name))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=str)
def test_every_recipes_network_takes_small_images_and_has_a_logit_for_each_class(recipe: Recipe) -> None:
    network = init_network(recipe.model, classes=7, seed=1).eval()
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_weights_follow_from_the_seed_alone(recipe: str) -> None:
    model = RECIPES[recipe].model  # type: ignore[index]
    torch.rand(3)
    before = torch.get_rng_state()
    one, again, other = (init_network(model, 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_resnet18_has_torchvisions_weights_and_a_stem_for_small_images() -> None:
    network = build_network("tasks.core.models.resnet:resnet18", 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962
    assert isinstance(network, nn.Module)
    assert network.conv1.weight.shape == (64, 3, 3, 3)


def test_ones_own_network_is_found_in_the_current_folder(own_package: Path) -> None:
    assert init_network(f"{own_package.name}.nets:network", 4, seed=1)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def code_of(model: str) -> dict[str, str]:
    """As another process would find it."""
    model_code_digests.cache_clear()
    return model_code_digests(model)


def test_the_code_of_ones_own_network_is_every_file_of_its_package(own_package: Path) -> None:
    model = f"{own_package.name}.nets:network"
    found = code_of(model)
    files = [f"{own_package.name}/{name}.py" for name in ("__init__", "nets", "parts")]
    assert list(found) == [*files, "package torch"]
    assert found["package torch"] == version("torch")

    (own_package / "parts.py").write_text("# a comment\nwidth = 5\n")
    assert code_of(model) == found

    (own_package / "parts.py").write_text("width = 6\n")
    changed = code_of(model)
    assert [name for name in found if changed[name] != found[name]] == [f"{own_package.name}/parts.py"]


def test_it_is_the_code_that_this_process_has_imported_whatever_becomes_of_the_files(own_package: Path) -> None:
    model = f"{own_package.name}.nets:network"
    found = code_of(model)
    (own_package / "parts.py").write_text("width = 6\n")
    assert model_code_digests(model) == found


def test_that_is_found_out_when_a_run_is_asked_for_and_not_when_it_trains(own_package: Path) -> None:
    model = f"{own_package.name}.nets:network"
    training_of(Settings(model=model))
    (own_package / "parts.py").write_text("width = 6\n")
    found = model_code_digests(model)
    assert code_of(model) != found


@pytest.mark.parametrize(
    "source",
    [
        "from {name}.nets import network",
        "import {name}.nets\nnetwork = {name}.nets.network",
        "from functools import partial\nfrom {name}.nets import network as whole\nnetwork = partial(whole)",
        "def network(classes):\n    from {name} import nets\n    return nets.network(classes)",
    ],
)
def test_what_a_module_imports_from_beside_it_counts_however_and_wherever_it_does(
    source: str, own_package: Path
) -> None:
    module = f"beside_{own_package.name}"
    own_package.with_name(f"{module}.py").write_text(source.format(name=own_package.name) + "\n")
    found = code_of(f"{module}:network")
    assert {f"{own_package.name}/nets.py", f"{own_package.name}/parts.py"} < set(found)

    (own_package / "parts.py").write_text("width = 6\n")
    assert code_of(f"{module}:network") != found


def test_folders_that_are_linked_into_the_package_are_part_of_it(own_package: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "deep.py").write_text("width = 5\n")
    (own_package / "linked").symlink_to(tmp_path / "linked")
    (own_package / "again").symlink_to(own_package)
    model = f"{own_package.name}.nets:network"
    found = code_of(model)

    (tmp_path / "linked" / "deep.py").write_text("width = 6\n")

    changed = code_of(model)
    assert [name for name in found if changed[name] != found[name]] == [f"{own_package.name}/linked/deep.py"]


def test_what_it_imports_from_another_folder_counts_too_if_nobody_installed_it(
    own_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = own_package.parent / "elsewhere"
    elsewhere.mkdir()
    library = f"library_of_{own_package.name}"
    (elsewhere / f"{library}.py").write_text("width = 5\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    (own_package / "parts.py").write_text(f"import json, numpy\nfrom {library} import width\n")
    found = code_of(f"{own_package.name}.nets:network")
    assert {name for name in found if not name.startswith(own_package.name)} == {
        f"{library}.py",
        "package numpy",
        "package torch",
    }

    (elsewhere / f"{library}.py").write_text("width = 6\n")
    assert code_of(f"{own_package.name}.nets:network")[f"{library}.py"] != found[f"{library}.py"]


def test_a_factory_that_takes_on_another_ones_name_counts_by_its_own_code() -> None:
    assert {"own_networks.py", "tasks/core/models/airbench.py: fast"} <= set(code_of("own_networks:half_as_sure"))


def test_of_the_projects_modules_that_it_imports_every_symbol_counts(own_package: Path) -> None:
    (own_package / "parts.py").write_text("from tasks.core.models.airbench import AirbenchNet\nwidth = 5\n")
    found = code_of(f"{own_package.name}.nets:network")
    assert set(model_code_digests("tasks.core.models.airbench:record")) < set(found)


def test_a_file_that_is_no_python_counts_by_its_bytes(own_package: Path) -> None:
    template = own_package / "template.py"
    template.write_text("def {{ name }}():\n")
    found = code_of(f"{own_package.name}.nets:network")
    template.write_text("def {{ name }}(): # changed\n")
    changed = code_of(f"{own_package.name}.nets:network")
    assert [name for name in found if changed[name] != found[name]] == [f"{own_package.name}/template.py"]


def test_what_is_installed_counts_by_its_version() -> None:
    assert code_of("torchvision.models:resnet18") == {"package torchvision": version("torchvision")}


def test_a_network_whose_code_is_in_no_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"model builtins:int: expected its code in a file, .* got none"):
        model_code_digests("builtins:int")


def test_each_layer_is_in_the_mode_it_was_in_after_the_network_was_asked() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
    with eval_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("no_such_package:network", "No module named 'no_such_package'"),
        ("own_networks:no_such", "expected package.module:factory, got a module that has no 'no_such'"),
        ("own_networks:no_network", "expected it to make a torch.nn.Module, got str"),
        ("own_networks:wrong_head", "expected logits [2, 10] for 2 images, got [2, 7]"),
        ("own_networks:WithOtherState", "expected a state_dict of tensors alone, got something else as _extra_state"),
        ("own_networks:two_answers", "expected logits [2, 10] for 2 images, got tuple"),
        ("own_networks:other_images", "expected it to take images [N, 3, 32, 32], got RuntimeError: "),
        ("own_networks:never_made", "expected a factory that takes the number of classes, got KeyError: 'width'"),
        ("own_networks:RATE", "expected a factory that takes the number of classes, got TypeError: 'float' object"),
        ("os:getcwd", "expected a factory that takes the number of classes"),
    ],
)
def test_what_is_no_network_for_these_images_is_refused_in_one_line(model: str, expected: str) -> None:
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
def test_what_is_wrong_in_the_code_of_ones_own_network_is_told_with_its_line(
    source: str, expected: str, own_package: Path
) -> None:
    (own_package / "parts.py").write_text(source + "\n")
    with pytest.raises(InputError) as caught:
        init_network(f"{own_package.name}.nets:network", 10, seed=1)
    assert expected.format(folder=own_package) in str(caught.value)


def test_our_networks_code_is_told_symbol_by_symbol() -> None:
    assert list(model_code_digests("tasks.core.models.tutorial_net:Net")) == ["tasks/core/models/tutorial_net.py: Net"]
    assert load_factory("tasks.core.models.tutorial_net:Net").__name__ == "Net"
