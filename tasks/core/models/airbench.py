"""A small network that trains fast: a whitening first layer, then groups of convolutions.

The design is Keller Jordan's, https://arxiv.org/abs/2404.00498, with other widths.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

PATCH = 2  # width and height of the first layer's filters, in pixels
MIN_VARIANCE = 1e-4  # limits the scale of directions that are almost constant
BATCH_NORM_MOMENTUM = 0.4  # high, as training is short


def fast(classes: int) -> nn.Module:
    """The network for a CPU: about 10 million multiplications per image in a forward pass."""
    return AirbenchNet(classes, widths=(16, 64, 128), strided=True)


def record(classes: int) -> nn.Module:
    """The network for a GPU: eleven times as many multiplications."""
    return AirbenchNet(classes, widths=(64, 256, 256))


class AirbenchNet(nn.Module):
    """Three groups of two 3x3 convolutions, each group halving the image; logits [N, classes] of [N, 3, 32, 32].

    With `strided` the first group halves the image by a strided convolution, with a quarter of the arithmetic.
    """

    def __init__(self, classes: int, widths: tuple[int, int, int], *, strided: bool = False) -> None:
        super().__init__()
        patch_values = 3 * PATCH**2
        self.whitening = nn.Conv2d(3, 2 * patch_values, PATCH, bias=False).requires_grad_(False)
        inputs = (2 * patch_values, *widths[:2])
        self.groups = nn.Sequential(nn.GELU(), *map(group, inputs, widths, (strided, False, False)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        with torch.no_grad():
            self.head.weight.div_(self.head.weight.std())

    def prepare_on_training_images(self, inputs_nchw: Tensor) -> None:
        """Compute the fixed first layer from training images, so that its outputs are uncorrelated."""
        inputs = inputs_nchw.cpu() if inputs_nchw.device.type == "mps" else inputs_nchw  # MPS has no float64
        windows = inputs.double().unfold(2, PATCH, 1).unfold(3, PATCH, 1)
        patches = windows.permute(1, 4, 5, 0, 2, 3).flatten(3).flatten(0, 2)  # [values of a patch, patches]
        variances, directions = torch.linalg.eigh((patches @ patches.T / patches.shape[1]).cpu())
        filters = (directions / (variances + MIN_VARIANCE).sqrt()).T.reshape(-1, 3, PATCH, PATCH)
        with torch.no_grad():
            self.whitening.weight.copy_(torch.cat([filters, -filters]))  # GELU damps negative values

    def forward(self, inputs_nchw: Tensor) -> Tensor:
        maps = self.groups(self.whitening(inputs_nchw))
        # Not `amax`: compiled, its backward compares rounded values, may find no maximum, and divides by 0.
        features = max_pool2d(maps, maps.shape[2:]).flatten(1)
        logits: Tensor = self.head(features) / features.shape[1]
        return logits


def group(inputs: int, outputs: int, strided: bool) -> nn.Sequential:
    """Two convolutions with batch norm and GELU; the image is halved by the first one if `strided`, else by pooling."""
    # Both halve 31 pixels to 15.
    halving = (
        [convolution(inputs, outputs, stride=2, padding=0)]
        if strided
        else [convolution(inputs, outputs), nn.MaxPool2d(2)]
    )
    return nn.Sequential(
        *halving,
        normalization(outputs),
        nn.GELU(),
        convolution(outputs, outputs),
        normalization(outputs),
        nn.GELU(),
    )


def convolution(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that starts as the identity on as many channels as possible."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def normalization(channels: int) -> nn.BatchNorm2d:
    """Batch norm without a trained scale: the filters before it have a fixed norm."""
    layer = nn.BatchNorm2d(channels, momentum=BATCH_NORM_MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer
