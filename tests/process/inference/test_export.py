"""`cifar export`: files that other programs run, which answer as the run did."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command import Cifar
from places import flip_a_bit
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset
from tiny_runs import tiny_run

from tasks.core.config import PROJECT, ExportFormat, Settings
from tasks.core.data.dataset import load_dataset
from tasks.core.data.identity import NOT_CIFAR10
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.evaluation.evaluate import class_probabilities
from tasks.core.inference.export import Check, Description
from tasks.core.inference.export_formats import FORMATS, SelfContained
from tasks.core.models.factory import init_network, load_factory
from tasks.core.reading import payload, predictions, weights
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime import files

CPU = torch.device("cpu")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
OWN = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, classes)

    def forward(self, inputs_nchw):
        return torch.tanh(self.head(inputs_nchw.flatten(1)))
"""

EXPORTING = """
import torch
from tasks.core.config import Normalization
from tasks.core.errors import InputError
from tasks.core.inference.export_formats import SelfContained, onnx_bytes, program_bytes
from tasks.core.models.factory import init_network

def outcome(model):
    try:
        onnx_bytes(SelfContained(init_network(model, 10, seed=1), Normalization()), "{}")
        return "exported"
    except InputError:
        return "refused"

print(", ".join(map(outcome, ["tasks.core.models.tutorial_net:Net", "own_networks:Undecided", "own_networks:Bessel"])))
fast = init_network("tasks.core.models.airbench:fast", 10, seed=1).eval().to(memory_format=torch.channels_last)
program_bytes(SelfContained(fast, Normalization()), "{}")
"""

Train = Callable[..., str]


@pytest.fixture
def train(cifar: Cifar, archive: Path) -> Train:
    """Adds a run to the store, which does not become the current one, and says which."""

    def run(**settings: Any) -> str:
        return tiny_run(cifar.root, Settings(source=str(archive), epochs=1, promote="never", **settings)).run

    return run


def metadata_of(path: Path) -> str:
    """What a file says of itself, read as its users would."""
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["cifar_flow"]
    if path.suffix == ".pt2":
        found = {"cifar_flow": ""}
        torch.export.load(path, extra_files=found)
        return found["cifar_flow"]
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["cifar_flow"])


# What is in a file


@pytest.mark.parametrize("export_format", ["onnx", "exported-program"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_recipes_network_answers_as_a_graph_as_it_does_here(
    recipe: Recipe, export_format: ExportFormat, tmp_path: Path
) -> None:
    dataset = tiny_dataset()
    network = init_network(recipe.model, len(dataset.classes), seed=1)
    classifier = SelfContained(network, dataset.normalization)
    path = tmp_path / "network"

    path.write_bytes(FORMATS[export_format].to_bytes(classifier, "{}"))
    answer = FORMATS[export_format].opened(path, classifier)

    images = torch.from_numpy(np.array(dataset.test_images))
    expected = class_probabilities(network, images, dataset.normalization)
    for count in (1, len(expected)):
        probabilities = answer(np.array(dataset.test_images[:count]))
        assert probabilities.dtype == np.float32
        assert np.abs(probabilities - expected[:count]).max() < 1e-5


def test_an_onnx_file_turns_any_number_of_images_of_bytes_into_the_runs_probabilities(
    cifar: Cifar, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    cifar("export", "current", "--format", "onnx", "--output", str(path))

    session = onnxruntime.InferenceSession(path)
    [images], [probabilities] = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, 32, 32])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    assert probabilities.shape == ["batch", 10]
    stored = predictions(cifar.store).filter(like="prob_").to_numpy()
    pixels = np.array(load_dataset(payload(cifar.store, "dataset")).test_images)
    for count in (1, 7, 100):
        [answers] = session.run(None, {"images": pixels[:count]})
        assert np.abs(answers - stored[:count]).max() < 1e-4


def test_the_readmes_lines_run_an_exported_file(
    cifar: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [command] = re.findall(r"^cifar (export .*--output \S+)$", README, re.MULTILINE)
    [lines] = re.findall(r"```python\n(import json.*?onnxruntime.*?)```", README, re.DOTALL)

    cifar(*command.split())
    exec(lines, {"images": np.array(load_dataset(payload(cifar.store, "dataset")).test_images)})

    assert capsys.readouterr().out == f"{predictions(cifar.store)['predicted'].tolist()}\n"


def test_safetensors_hold_the_runs_weights_bit_for_bit(cifar: Cifar, tmp_path: Path) -> None:
    cifar("export", "previous", "--format", "safetensors", "--output", str(tmp_path / "net.safetensors"))

    exported, trained = load_file(tmp_path / "net.safetensors"), weights(cifar.store, "previous")
    assert exported.keys() == trained.keys()
    assert all(torch.equal(exported[name], trained[name]) for name in trained)


def test_safetensors_with_one_other_bit_are_told(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    classifier = SelfContained(init_network("own_networks:dropout_network", 3, seed=1), dataset.normalization)
    path = tmp_path / "net.safetensors"
    path.write_bytes(FORMATS["safetensors"].to_bytes(classifier, "{}"))
    tensors = load_file(path)
    tensors["6.bias"].view(torch.int32)[0] ^= 1
    save_file(tensors, path)

    with pytest.raises(EnvironmentFailure, match=r"got others in 6\.bias"):
        FORMATS["safetensors"].opened(path, classifier)


@pytest.mark.parametrize("export_format", FORMATS)
def test_a_file_says_what_it_is_and_not_where_it_was_made(
    cifar: Cifar, export_format: ExportFormat, tmp_path: Path
) -> None:
    path = tmp_path / f"net{FORMATS[export_format].suffix}"
    cifar("export", "current", "--format", export_format, "--output", str(path))

    said = Description.model_validate_json(metadata_of(path))
    record, dataset = cifar.run("current"), load_dataset(payload(cifar.store, "dataset"))
    assert (said.run, said.weights) == (record.run, record.artifacts["weights"])
    assert (said.dataset, said.generated_images) == (record.dataset, True)
    assert (said.classes, said.normalization) == (dataset.classes, dataset.normalization)
    assert said.model == "tasks.core.models.tutorial_net:Net"
    for folder in (PROJECT, tmp_path, Path(sys.prefix)):
        assert str(folder).encode() not in path.read_bytes()


# The check


@pytest.mark.parametrize("export_format", FORMATS)
def test_the_check_is_printed_and_kept_beside_the_file(
    cifar: Cifar, export_format: ExportFormat, tmp_path: Path
) -> None:
    path = tmp_path / f"net{FORMATS[export_format].suffix}"
    beside = tmp_path / f"{path.name}.check.json"

    printed = cifar("export", "current", "--format", export_format, "--output", str(path))

    check = Check.model_validate_json(beside.read_text())
    assert (check.file, check.sha256, check.format) == (path.name, files.sha256_of(path), export_format)
    assert (check.images, check.reference, check.tolerance) == (100, "the run's predictions", 1e-4)
    assert 0 <= check.largest_difference <= check.tolerance
    assert check.exported == Description.model_validate_json(metadata_of(path))
    assert check.versions["torch"] == torch.__version__.partition("+")[0]
    assert sorted(item for item in tmp_path.iterdir() if item.is_file()) == [path, beside]
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert lines["file"] == f"{path.name}, beside it {beside.name}"
    assert lines["images"] == NOT_CIFAR10
    assert lines["check"].startswith("on 100 test images no probability is further than ")
    again = cifar.json("export", "current", "--format", export_format, "--output", str(path))
    assert again == json.loads(beside.read_text())


def test_a_run_that_asked_mirrored_images_too_is_checked_without_them(
    cifar: Cifar, train: Train, tmp_path: Path
) -> None:
    run = train(recipe="fast")

    check = Check.model_validate(cifar.json("export", run, "--format", "onnx", "--output", str(tmp_path / "fast.onnx")))

    assert check.reference == "predictions made anew on a CPU without test augmentation"
    assert (check.images, check.largest_difference <= check.tolerance) == (100, True)


def test_a_file_that_answers_otherwise_is_not_written_and_the_one_before_it_stays(
    cifar: Cifar, train: Train, tmp_path: Path
) -> None:
    run, path = train(model="own_networks:TwoFaced"), tmp_path / "net.pt2"
    cifar("export", "current", "--format", "exported-program", "--output", str(path))
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.is_file()}

    for export_format in ("onnx", "exported-program"):
        arguments = ("export", run, "--format", export_format, "--model", "own_networks:TwoFaced")
        said = cifar.refused(*arguments, "--output", str(path), exit_code=1)
        assert said.startswith(
            "export: expected probabilities within 0.0001 of the run's predictions on 100 test images, got a difference"
        )
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.is_file()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("torch.tanh", "torch.relu"), "the network answers otherwise than it did in the run; restore its code"),
        (("self.head", "self.top"), "expected the trained network, got: Error(s) in loading state_dict"),
    ],
)
def test_a_network_whose_code_has_changed_since_the_run_is_refused(
    cifar: Cifar, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"own_{change[1].partition('.')[2]}"
    source = tmp_path / f"{name}.py"
    source.write_text(OWN)
    run = train(model=f"{name}:Small")
    source.write_text(f"# edited\n{OWN.replace(*change)}")
    importlib.reload(sys.modules[name])
    load_factory.cache_clear()

    said = cifar.refused("export", run, "--format", "safetensors", "--model", f"{name}:Small")

    assert words in said
    assert not list(tmp_path.glob("*.safetensors*"))


# One's own network


def test_ones_own_network_is_exported_to_every_format_when_it_is_named(
    cifar: Cifar, train: Train, tmp_path: Path
) -> None:
    run, model, path = train(model="own_networks:dropout_network"), "own_networks:dropout_network", tmp_path / "net"

    for export_format in FORMATS:
        arguments = ("export", run, "--format", export_format, "--output", str(path))
        assert cifar.refused(*arguments) == (
            f"model: the run trained a network of one's own; give --model {model} to have that code run"
        )
        assert not path.exists()
        assert cifar.json(*arguments, "--model", model)["exported"]["model"] == model
        path.unlink()


@pytest.mark.parametrize(
    ("network", "export_format", "reason"),
    [
        ("Undecided", "onnx", "torch.export can follow for any number of images, got GuardOnDataDependentSymNode: "),
        ("Undecided", "exported-program", ", at own_networks.py:"),
        ("Fixed", "exported-program", "your code specialized it to be a constant (2); "),
        ("Bessel", "onnx", "torch.onnx can follow for any number of images, got DispatchError: No ONNX function"),
    ],
)
def test_a_network_that_cannot_be_exported_is_refused_in_one_line_with_the_reason(
    network: str, export_format: ExportFormat, reason: str
) -> None:
    classifier = SelfContained(init_network(f"own_networks:{network}", 3, seed=1), tiny_dataset().normalization)

    with pytest.raises(InputError) as caught:
        FORMATS[export_format].to_bytes(classifier, "{}")

    assert reason in str(caught.value)
    assert str(caught.value).endswith("; change the network, or give --format safetensors")
    assert str(caught.value).isprintable()


def test_exporters_say_nothing_beside_what_is_said_of_them(tmp_path: Path) -> None:
    """In a process of its own, as what they log depends on who else has set up logging."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(Path(__file__).parent)])}
    command = [sys.executable, "-c", EXPORTING]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("exported, refused, refused\n", "")


# What the user gives


def test_the_file_is_named_after_the_run_where_no_other_name_is_given(
    cifar: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    cifar("export", "previous", "--format", "safetensors")

    assert (tmp_path / f"{cifar.run('previous').run}.safetensors").is_file()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "output: expected a file, got the folder "),
        ("no/net", "output: expected a folder that can be written, "),
        ("artifacts/cifar_net.pth", "output: expected a folder of your own, got the store "),
        ("n" * 235, "output: expected a name of at most 240 bytes, got one of 246"),
    ],
)
def test_where_no_file_can_be_written_is_said_at_once(cifar: Cifar, tmp_path: Path, output: str, words: str) -> None:
    said = cifar.refused("export", "current", "--format", "onnx", "--output", str(tmp_path / output))
    assert said.startswith(words)


def test_a_library_that_is_not_there_is_named_with_how_to_install_it(
    cifar: Cifar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cifar.refused("export", "current", "--format", "onnx") == (
        "export: expected onnxruntime to be installed; install cifar-flow with its extra: pip install '.[export]'"
    )


def test_damaged_weights_are_not_exported(cifar: Cifar, tmp_path: Path) -> None:
    flip_a_bit(cifar.place, f"{cifar.run('current').artifacts['weights']}/cifar_net.pth")

    said = cifar.refused("export", "current", "--format", "onnx", "--output", str(tmp_path / "net.onnx"), exit_code=1)

    assert "cifar_net.pth is damaged" in said
    assert not list(tmp_path.glob("net*"))
