"""A small network for CIFAR-10's images that is quick to train: a whitening first layer, then convolutions in groups.

The design is Keller Jordan's, https://arxiv.org/abs/2404.00498, here with widths that suit the machine.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

PATCH = 2  # pixels on a side, that the first layer sees
SMALLEST_VARIANCE = 1e-4  # keeps what is almost constant in a patch from being blown up
BATCH_NORM_MOMENTUM = 0.4  # of the latest batch in the running statistics: training is short


def fast(classes: int) -> nn.Module:
    """About 10 million multiplications an image, forward: for a CPU."""
    return AirbenchNet(classes, widths=(16, 64, 128), strided=True)


def record(classes: int) -> nn.Module:
    """Eleven times as many, for a GPU."""
    return AirbenchNet(classes, widths=(64, 256, 256))


class AirbenchNet(nn.Module):
    """Three groups of two 3x3 convolutions, each group halving the image; logits [N, classes] of [N, 3, 32, 32].

    With `strided` the first group halves by its first convolution, which then takes a quarter of the arithmetic.
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
        """Fill the first layer, which is not trained, from training images: their patches come out uncorrelated."""
        inputs = inputs_nchw.cpu() if inputs_nchw.device.type == "mps" else inputs_nchw  # which has no float64
        windows = inputs.double().unfold(2, PATCH, 1).unfold(3, PATCH, 1)
        patches = windows.permute(1, 4, 5, 0, 2, 3).flatten(3).flatten(0, 2)  # a row for each value of a patch
        variances, directions = torch.linalg.eigh((patches @ patches.T / patches.shape[1]).cpu())
        filters = (directions / (variances + SMALLEST_VARIANCE).sqrt()).T.reshape(-1, 3, PATCH, PATCH)
        with torch.no_grad():
            self.whitening.weight.copy_(torch.cat([filters, -filters]))  # GELU damps what is negative

    def forward(self, inputs_nchw: Tensor) -> Tensor:
        maps = self.groups(self.whitening(inputs_nchw))
        # Pooled, as a compiled `amax` compares rounded values with others and divides by how many it finds: none.
        features = max_pool2d(maps, maps.shape[2:]).flatten(1)
        logits: Tensor = self.head(features) / features.shape[1]
        return logits


def group(inputs: int, outputs: int, strided: bool) -> nn.Sequential:
    # Both make 15 pixels of 31.
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
    """A 3x3 convolution that at first passes on as many of its inputs as it can."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def normalization(channels: int) -> nn.BatchNorm2d:
    """Batch norm without a scale of its own: the filters before it have a fixed length."""
    layer = nn.BatchNorm2d(channels, momentum=BATCH_NORM_MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer
