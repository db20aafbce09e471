"""torchvision's ResNet-18 for small images."""

from torch import nn
from torchvision.models import resnet18 as imagenet_resnet18


def resnet18(classes: int) -> nn.Module:
    """ResNet-18 with a stem for 32x32 images: a 3x3 convolution and no pooling.

    He et al. (2015), https://arxiv.org/abs/1512.03385, section 4.2
    """
    network: nn.Module = imagenet_resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network
