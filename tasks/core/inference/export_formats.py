"""The file formats that other programs run a network from: how it becomes bytes, and how these bytes answer again."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
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
from tasks.core.data.dataset import Images, expand
from tasks.core.errors import EnvironmentFailure, InputError

METADATA_KEY = "cifar_flow"  # as in our tables and weights
NOT_OWN = (Path(torch.__file__).parent, Path(__file__))

Answer = Callable[[Images], NDArray[np.float32]]


class SelfContained(nn.Module):
    """A network with all it needs: bytes in, class probabilities out."""

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network, self.normalization = network.eval(), normalization

    def forward(self, images_nchw: Tensor) -> Tensor:
        """Probabilities float32 [N, classes] of images uint8 [N, 3, 32, 32]."""
        logits: Tensor = self.network(expand(images_nchw, self.normalization))
        return logits.softmax(dim=1, dtype=torch.float32)


class Format(NamedTuple):
    """`to_bytes` takes the metadata too; `opened` reads a file back, given the classifier that it was made from."""

    suffix: str
    libraries: tuple[str, ...]
    to_bytes: Callable[[SelfContained, str], bytes]
    opened: Callable[[Path, SelfContained], Answer]


@torch.no_grad()
def trace(classifier: SelfContained) -> ExportedProgram:
    """The classifier as a graph, for batches of any size."""
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with _exporting("torch.export"):
        program = torch.export.export(classifier, (example,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the folders of whoever exports
    return program


def onnx_bytes(classifier: SelfContained, metadata: str) -> bytes:
    program = trace(classifier)
    with _exporting("torch.onnx"):
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


def onnx_opened(path: Path, _: SelfContained) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(images: Images) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(["probabilities"], {"images": images})[0]
        return probabilities

    return answer


def program_bytes(classifier: SelfContained, metadata: str) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is saved is read again and held against what it should answer
        torch.export.save(trace(classifier), buffer, extra_files={METADATA_KEY: metadata})
    return buffer.getvalue()


def program_opened(path: Path, _: SelfContained) -> Answer:
    return _answer(torch.export.load(BytesIO(path.read_bytes())).module())


def safetensors_bytes(classifier: SelfContained, metadata: str) -> bytes:
    return safetensors.torch.save(_state(classifier.network), {METADATA_KEY: metadata})


def safetensors_opened(path: Path, classifier: SelfContained) -> Answer:
    """The network with the file's tensors, which must be its own bit for bit."""
    read, own = safetensors.torch.load_file(path), _state(classifier.network)
    differing = sorted(name for name in own.keys() | read.keys() if not _same_bits(own.get(name), read.get(name)))
    if differing:
        raise EnvironmentFailure(
            f"export: expected the weights as they were written, got others in {', '.join(differing)}"
        )
    again = deepcopy(classifier)
    again.network.load_state_dict(read)
    return _answer(again)


def _answer(classify: Callable[[Tensor], Tensor]) -> Answer:
    @torch.inference_mode()
    def answer(images: Images) -> NDArray[np.float32]:
        return classify(torch.from_numpy(images)).numpy()

    return answer


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Its tensors; cloned, as those that share a buffer cannot be written."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}


def _same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


@contextmanager
def _exporting(tool: str) -> Iterator[None]:
    """Tell what an exporter has against a network in one line, in place of all that it logs, warns of and prints."""
    try:
        with redirect_stderr(StringIO()):
            yield
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise InputError(
            f"export: expected a network that {tool} can follow for any number of images, got {_reason(error)}; "
            "change the network, or give --format safetensors"
        ) from error


def _reason(error: BaseException) -> str:
    """The sentence that matters of an exporter's many, and the line of the network where it came up."""
    forwards = [frame for frame in extract_tb(error.__traceback__) if frame.name == "forward"]
    own = [frame for frame in forwards if not any(Path(frame.filename).is_relative_to(code) for code in NOT_OWN)]
    while error.__cause__:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    telling = next((line.removeprefix("- ") for line in lines if line.startswith("- ")), lines[0])
    reason = f"{type(error).__name__}: {telling.partition('. ')[0].removesuffix('.')}"
    return f"{reason}, at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else reason


FORMATS: dict[ExportFormat, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), onnx_bytes, onnx_opened),
    "exported-program": Format(".pt2", (), program_bytes, program_opened),
    "safetensors": Format(".safetensors", ("safetensors",), safetensors_bytes, safetensors_opened),
}
