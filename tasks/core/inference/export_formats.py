"""The export formats: how a network is written to each, and how it is read back for verification."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import BytesIO, StringIO
from pathlib import Path
from traceback import extract_tb
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tasks.core.config import ExportFormat, Normalization
from tasks.core.data.dataset import Images, normalize_images
from tasks.core.errors import EnvironmentFailure, InputError

METADATA_KEY = "cifar_flow"  # as in tables and weights
LIBRARY_CODE = (Path(torch.__file__).parent, Path(__file__))

Predict = Callable[[Images], NDArray[np.float32]]


class PixelClassifier(nn.Module):
    """A network from pixels to class probabilities: it normalizes the images itself."""

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network, self.normalization = network.eval(), normalization

    def forward(self, images_nchw: Tensor) -> Tensor:
        """Return probabilities, float32 [N, classes], for images, uint8 [N, 3, 32, 32]."""
        logits: Tensor = self.network(normalize_images(images_nchw, self.normalization))
        return logits.softmax(dim=1, dtype=torch.float32)


class Format(NamedTuple):
    """A file format; `load` reads a file back, given the classifier that was exported."""

    suffix: str
    libraries: tuple[str, ...]
    to_bytes: Callable[[PixelClassifier, str], bytes]
    load: Callable[[Path, PixelClassifier], Predict]


@torch.no_grad()
def trace(classifier: PixelClassifier) -> ExportedProgram:
    """Trace the classifier to a graph, for batches of any size."""
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with _exporter_errors("torch.export"):
        program = torch.export.export(classifier, (example,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains paths of this machine
    return program


def onnx_bytes(classifier: PixelClassifier, metadata: str) -> bytes:
    program = trace(classifier)
    with _exporter_errors("torch.onnx"):
        exported = torch.onnx.export(
            program,
            (),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
        assert exported is not None
        exported.model.metadata_props[METADATA_KEY] = metadata
        return bytes(exported.model_proto.SerializeToString())


def load_onnx(path: Path, _: PixelClassifier) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def program_bytes(classifier: PixelClassifier, metadata: str) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is verified after it is read back
        torch.export.save(trace(classifier), buffer, extra_files={METADATA_KEY: metadata})
    return buffer.getvalue()


def load_program(path: Path, _: PixelClassifier) -> Predict:
    return _predictor(torch.export.load(BytesIO(path.read_bytes())).module())


def safetensors_bytes(classifier: PixelClassifier, metadata: str) -> bytes:
    return safetensors.torch.save(_state(classifier.network), {METADATA_KEY: metadata})


def load_safetensors(path: Path, classifier: PixelClassifier) -> Predict:
    """Read the tensors back, which must equal the weights of the network bit for bit, and so predict the same."""
    read = safetensors.torch.load_file(path)
    differing = {name for name, _ in _bits(read).items() ^ _bits(_state(classifier.network)).items()}
    if differing:
        got = f"others in {', '.join(sorted(differing))}"
        raise EnvironmentFailure("export", expected="the weights as they were written", got=got)
    return _predictor(classifier)


def _predictor(classify: Callable[[Tensor], Tensor]) -> Predict:
    @torch.inference_mode()
    def predict(images: Images) -> NDArray[np.float32]:
        return classify(torch.from_numpy(images)).numpy()

    return predict


def _state(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network, cloned: tensors that share a buffer cannot be written."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}


def _bits(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    """Every tensor in a form that is equal only bit for bit."""
    return {
        name: (tensor.dtype, tensor.shape, tensor.flatten().view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


@contextmanager
def _exporter_errors(tool: str) -> Iterator[None]:
    """Raise an exporter's error as one line, and hide what the exporter prints."""
    try:
        with redirect_stderr(StringIO()):
            yield
    except Exception as error:  # tracing runs the code of the network, which may raise anything
        raise InputError(
            "export",
            expected=f"a network that {tool} can trace for any batch size",
            got=_reason(error),
            advice="change the network, or give --format safetensors",
        ) from error


def _reason(error: BaseException) -> str:
    """The main sentence of an exporter's error, and the line of the network's code that caused it."""
    forwards = [frame for frame in extract_tb(error.__traceback__) if frame.name == "forward"]
    own = [frame for frame in forwards if not any(Path(frame.filename).is_relative_to(code) for code in LIBRARY_CODE)]
    while error.__cause__:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    main = next((line.removeprefix("- ") for line in lines if line.startswith("- ")), lines[0])
    reason = f"{type(error).__name__}: {main.partition('. ')[0].removesuffix('.')}"
    return f"{reason}, at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else reason


FORMATS: dict[ExportFormat, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), onnx_bytes, load_onnx),
    "exported-program": Format(".pt2", (), program_bytes, load_program),
    "safetensors": Format(".safetensors", ("safetensors",), safetensors_bytes, load_safetensors),
}
