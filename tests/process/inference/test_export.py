"""`cifar export`: files for other programs that predict the same as the run."""

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
from run_tables import payload, predictions, run_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset
from tiny_runs import tiny_run

from tasks.core.config import PROJECT, ExportFormat, Settings
from tasks.core.data.dataset import load_dataset
from tasks.core.data.identity import NOT_CIFAR10
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.evaluation.evaluate import predict_probabilities
from tasks.core.inference.export import Description, ExportCheck
from tasks.core.inference.export_formats import FORMATS, PixelClassifier
from tasks.core.models.factory import init_network, load_factory
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime import files

CPU = torch.device("cpu")
PAGE = (PROJECT / "docs" / "predict-and-export.md").read_text(encoding="utf-8")
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
from tasks.core.inference.export_formats import PixelClassifier, onnx_bytes, program_bytes
from tasks.core.models.factory import init_network

def outcome(model):
    try:
        onnx_bytes(PixelClassifier(init_network(model, 10, seed=1), Normalization()), "{}")
        return "exported"
    except InputError:
        return "refused"

models = ["tasks.core.models.tutorial_net:Net", "custom_networks:Undecided", "custom_networks:Bessel"]
print(", ".join(map(outcome, models)))
fast = init_network("tasks.core.models.airbench:fast", 10, seed=1).eval().to(memory_format=torch.channels_last)
program_bytes(PixelClassifier(fast, Normalization()), "{}")
"""

Train = Callable[..., str]


@pytest.fixture
def train(cifar: Cifar, archive: Path) -> Train:
    """Adds a run to the store, which is not promoted, and returns its id."""

    def run(**settings: Any) -> str:
        return tiny_run(cifar.root, Settings(source=str(archive), epochs=1, promote="never", **settings)).run

    return run


def metadata_of(path: Path) -> str:
    """The metadata of an exported file."""
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["cifar_flow"]
    if path.suffix == ".pt2":
        metadata = {"cifar_flow": ""}
        torch.export.load(path, extra_files=metadata)
        return metadata["cifar_flow"]
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["cifar_flow"])


# Content of a file


@pytest.mark.parametrize("export_format", ["onnx", "exported-program"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_exported_graphs_predict_the_same_for_every_recipe(
    recipe: Recipe, export_format: ExportFormat, tmp_path: Path
) -> None:
    dataset = tiny_dataset()
    network = init_network(recipe.model, len(dataset.classes), seed=1)
    classifier = PixelClassifier(network, dataset.normalization)
    path = tmp_path / "network"

    path.write_bytes(FORMATS[export_format].to_bytes(classifier, "{}"))
    predict = FORMATS[export_format].load(path, classifier)

    images = torch.from_numpy(np.array(dataset.test_images))
    expected = predict_probabilities(network, images, dataset.normalization)
    for count in (1, len(expected)):
        probabilities = predict(np.array(dataset.test_images[:count]))
        assert probabilities.dtype == np.float32
        assert np.abs(probabilities - expected[:count]).max() < 1e-5


def test_onnx_files_predict_batches_of_any_size(cifar: Cifar, tmp_path: Path) -> None:
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
        [probabilities_of_batch] = session.run(None, {"images": pixels[:count]})
        assert np.abs(probabilities_of_batch - stored[:count]).max() < 1e-4


def test_the_readmes_lines_run_an_exported_file(
    cifar: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [command] = re.findall(r"^cifar (export .*--output \S+)$", PAGE, re.MULTILINE)
    [lines] = re.findall(r"```python\n(import json.*?onnxruntime.*?)```", PAGE, re.DOTALL)

    cifar(*command.split())
    exec(lines, {"images": np.array(load_dataset(payload(cifar.store, "dataset")).test_images)})

    assert capsys.readouterr().out == f"{predictions(cifar.store)['predicted'].tolist()}\n"


def test_safetensors_have_the_weights_of_the_run_bit_for_bit(cifar: Cifar, tmp_path: Path) -> None:
    cifar("export", "previous", "--format", "safetensors", "--output", str(tmp_path / "net.safetensors"))

    exported, trained = load_file(tmp_path / "net.safetensors"), run_of(cifar.store, "previous").weights
    assert exported.keys() == trained.keys()
    assert all(torch.equal(exported[name], trained[name]) for name in trained)


def test_a_flipped_bit_in_safetensors_is_found(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    classifier = PixelClassifier(init_network("custom_networks:dropout_network", 3, seed=1), dataset.normalization)
    path = tmp_path / "net.safetensors"
    path.write_bytes(FORMATS["safetensors"].to_bytes(classifier, "{}"))
    tensors = load_file(path)
    tensors["6.bias"].view(torch.int32)[0] ^= 1
    save_file(tensors, path)

    with pytest.raises(EnvironmentFailure, match=r"got others in 6\.bias"):
        FORMATS["safetensors"].load(path, classifier)


@pytest.mark.parametrize("export_format", FORMATS)
def test_metadata_describes_the_run_and_has_no_local_paths(
    cifar: Cifar, export_format: ExportFormat, tmp_path: Path
) -> None:
    path = tmp_path / f"net{FORMATS[export_format].suffix}"
    cifar("export", "current", "--format", export_format, "--output", str(path))

    metadata = Description.model_validate_json(metadata_of(path))
    record, dataset = cifar.run("current"), load_dataset(payload(cifar.store, "dataset"))
    assert (metadata.run, metadata.weights) == (record.run, record.artifacts["weights"])
    assert (metadata.dataset, metadata.generated_images) == (record.dataset, True)
    assert (metadata.classes, metadata.normalization) == (dataset.classes, dataset.normalization)
    assert metadata.model == "tasks.core.models.tutorial_net:Net"
    for folder in (PROJECT, tmp_path, Path(sys.prefix)):
        assert str(folder).encode() not in path.read_bytes()


# The check


@pytest.mark.parametrize("export_format", FORMATS)
def test_the_check_is_printed_and_written_beside_the_file(
    cifar: Cifar, export_format: ExportFormat, tmp_path: Path
) -> None:
    path = tmp_path / f"net{FORMATS[export_format].suffix}"
    beside = tmp_path / f"{path.name}.check.json"

    printed = cifar("export", "current", "--format", export_format, "--output", str(path))

    check = ExportCheck.model_validate_json(beside.read_text())
    assert (check.file, check.sha256, check.format) == (path.name, files.sha256_of(path), export_format)
    assert (check.images, check.reference, check.tolerance) == (100, "the stored predictions of the run", 1e-4)
    assert 0 <= check.largest_difference <= check.tolerance
    assert check.exported == Description.model_validate_json(metadata_of(path))
    assert check.versions["torch"] == torch.__version__.partition("+")[0]
    assert sorted(item for item in tmp_path.iterdir() if item.is_file()) == [path, beside]
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert lines["file"] == f"{path.name}; its check is {beside.name}"
    assert lines["images"] == NOT_CIFAR10
    assert lines["check"].startswith("on 100 test images, the largest difference in probability from ")
    again = cifar.json("export", "current", "--format", export_format, "--output", str(path))
    assert again == json.loads(beside.read_text())


def test_runs_with_test_augmentation_are_checked_without_it(cifar: Cifar, train: Train, tmp_path: Path) -> None:
    run = train(recipe="fast")

    check = ExportCheck.model_validate(
        cifar.json("export", run, "--format", "onnx", "--output", str(tmp_path / "fast.onnx"))
    )

    assert check.reference == "new predictions on a CPU without test augmentation"
    assert (check.images, check.largest_difference <= check.tolerance) == (100, True)


def test_a_file_that_predicts_something_else_is_not_written(cifar: Cifar, train: Train, tmp_path: Path) -> None:
    run, path = train(model="custom_networks:TwoFaced"), tmp_path / "net.pt2"
    cifar("export", "current", "--format", "exported-program", "--output", str(path))
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.is_file()}

    for export_format in ("onnx", "exported-program"):
        arguments = ("export", run, "--format", export_format, "--model", "custom_networks:TwoFaced")
        error = cifar.refused(*arguments, "--output", str(path), exit_code=1)
        assert error.startswith(
            "export: expected probabilities within 0.0001 of the stored predictions of the run on 100 test images, got "
        )
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.is_file()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("torch.tanh", "torch.relu"), "the network predicts something else than in the run; restore its code"),
        (("self.head", "self.top"), "expected the trained network, got Error(s) in loading state_dict"),
    ],
)
def test_a_network_whose_code_changed_since_the_run_is_refused(
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

    error = cifar.refused("export", run, "--format", "safetensors", "--model", f"{name}:Small")

    assert words in error
    assert not list(tmp_path.glob("*.safetensors*"))


# Custom networks


def test_a_custom_network_is_exported_if_it_is_named(cifar: Cifar, train: Train, tmp_path: Path) -> None:
    run, model, path = (
        train(model="custom_networks:dropout_network"),
        "custom_networks:dropout_network",
        tmp_path / "net",
    )

    for export_format in FORMATS:
        arguments = ("export", run, "--format", export_format, "--output", str(path))
        assert cifar.refused(*arguments) == (
            f"--model: expected {model}, the custom network of the run, got none; give --model {model} to run its code"
        )
        assert not path.exists()
        assert cifar.json(*arguments, "--model", model)["exported"]["model"] == model
        path.unlink()


@pytest.mark.parametrize(
    ("network", "export_format", "reason"),
    [
        ("Undecided", "onnx", "torch.export can trace for any batch size, got GuardOnDataDependentSymNode: "),
        ("Undecided", "exported-program", ", at custom_networks.py:"),
        ("Fixed", "exported-program", "your code specialized it to be a constant (2); "),
        ("Bessel", "onnx", "torch.onnx can trace for any batch size, got DispatchError: No ONNX function"),
    ],
)
def test_a_network_that_cannot_be_traced_is_refused_with_a_reason(
    network: str, export_format: ExportFormat, reason: str
) -> None:
    classifier = PixelClassifier(init_network(f"custom_networks:{network}", 3, seed=1), tiny_dataset().normalization)

    with pytest.raises(InputError) as caught:
        FORMATS[export_format].to_bytes(classifier, "{}")

    assert reason in str(caught.value)
    assert str(caught.value).endswith("; change the network, or give --format safetensors")
    assert str(caught.value).isprintable()


def test_exporters_print_nothing(tmp_path: Path) -> None:
    """In a new process, as their output depends on the configuration of logging."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(Path(__file__).parent)])}
    command = [sys.executable, "-c", EXPORTING]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("exported, refused, refused\n", "")


# Options


def test_the_file_is_named_after_the_run_by_default(
    cifar: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    cifar("export", "previous", "--format", "safetensors")

    assert (tmp_path / f"{cifar.run('previous').run}.safetensors").is_file()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "--output: expected a file, got the folder "),
        ("no/net", "--output: expected a writable folder, "),
        ("artifacts/cifar_net.pth", "--output: expected a folder outside the store, got the store "),
        ("n" * 235, "--output: expected a file name of at most 240 bytes, got 246 bytes"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(cifar: Cifar, tmp_path: Path, output: str, words: str) -> None:
    error = cifar.refused("export", "current", "--format", "onnx", "--output", str(tmp_path / output))
    assert error.startswith(words)


def test_a_missing_library_is_named(cifar: Cifar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cifar.refused("export", "current", "--format", "onnx") == (
        "--format: expected onnxruntime to be installed; install the extra of cifar-flow: pip install -e '.[export]'"
    )


def test_damaged_weights_are_not_exported(cifar: Cifar, tmp_path: Path) -> None:
    flip_a_bit(cifar.place, f"{cifar.run('current').artifacts['weights']}/cifar_net.pth")

    error = cifar.refused("export", "current", "--format", "onnx", "--output", str(tmp_path / "net.onnx"), exit_code=1)

    assert "cifar_net.pth is damaged" in error
    assert not list(tmp_path.glob("net*"))
