"""The tutorial's training step with hand-written gradients: on four images, autograd is mostly overhead."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tasks.core.models.tutorial_net import Net

KERNEL = 5
WINDOW = KERNEL + 1  # the inputs of the 2x2 outputs that are pooled into one
UNSUPPORTED = ("nesterov", "weight_decay", "dampening", "maximize")


class Parameter(NamedTuple):
    """A parameter and the tensor that its gradient is added to."""

    values: Tensor
    gradient: Tensor


class Layer:
    """`forward` computes the outputs from those of the previous layer, `backward` the previous layer's gradient.

    A layer's gradient is that of the loss with respect to its outputs; `backward` may overwrite it.
    """

    def __init__(self, *shape: int) -> None:
        self.outputs, self.gradient = torch.zeros(shape), torch.zeros(shape)

    def forward(self) -> None:
        """Do nothing: the first layer's outputs are the images."""

    def backward(self) -> None:
        """Do nothing: the first layer has no previous one."""


class Reorder(Layer):
    """The same values in another order; `order` returns a view."""

    def __init__(self, previous: Layer, order: Callable[[Tensor], Tensor]) -> None:
        self.inputs, self.inputs_gradient = order(previous.outputs), order(previous.gradient)
        super().__init__(*self.inputs.shape)

    def forward(self) -> None:
        self.outputs.copy_(self.inputs)

    def backward(self) -> None:
        self.inputs_gradient.copy_(self.gradient)


def split_even_odd(images: Tensor) -> Tensor:
    """A view [..., channels, 2, 2, height / 2, width / 2, N] of images [..., channels, height, width, N].

    In this view a 6x6 window at every second pixel is a 3x3 window at every pixel, so neighbouring windows are
    adjacent in memory.
    """
    split: Tensor = images.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2)).movedim((-4, -2), (-5, -4))
    return split


def windows(split: Tensor) -> Tensor:
    """A view [channels, 3, 2, 3, 2, height, width, N] of all 6x6 windows of images from `split_even_odd`."""
    return split.unfold(3, WINDOW // 2, 1).unfold(4, WINDOW // 2, 1).permute(0, 6, 1, 7, 2, 3, 4, 5)


class Kernel:
    """A convolution's weight as the matrix [4 filters, channels * 36] that multiplies a whole window.

    Its rows [2, 2, filters] are the filters at the four positions in the window, so it holds each weight four times.
    """

    def __init__(self, weight: Parameter) -> None:
        filters, channels = weight.values.shape[:2]
        count = weight.values.numel()
        self.weight, self.gradient_sum = weight.values.view(-1), weight.gradient.view(-1)
        self.matrix, self.gradient = torch.zeros(2, 4 * filters, channels * WINDOW**2).unbind()
        self.padded = torch.zeros(count + 1)  # the last value stays 0, for the zeros of the matrix
        origins = torch.full((2, 2, filters, channels, WINDOW, WINDOW), count)
        positions = torch.arange(origins.numel()).view(origins.shape)
        indices = []
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            filters_here = (row, column, ..., slice(row, row + KERNEL), slice(column, column + KERNEL))
            origins[filters_here] = torch.arange(count).view(weight.values.shape)
            indices.append(positions[filters_here].flatten())
        self.origins, self.indices = origins.view(-1).int(), torch.cat(indices).int()
        self.gathered, self.ones = torch.zeros(4 * count), torch.ones(4)
        self.flat_matrix, self.flat_gradient = self.matrix.view(-1), self.gradient.view(-1)
        self.padded_weight, self.gathered_t = self.padded[:-1], self.gathered.view(4, count).t()

    def fill_matrix(self) -> None:
        """Copy the weight into the matrix."""
        self.padded_weight.copy_(self.weight)
        torch.index_select(self.padded, 0, self.origins, out=self.flat_matrix)

    def add_gradient(self) -> None:
        """Add the matrix's gradient to the weight's."""
        torch.index_select(self.flat_gradient, 0, self.indices, out=self.gathered)
        self.gradient_sum.addmv_(self.gathered_t, self.ones)


class Convolution(Layer):
    """A 5x5 convolution without bias, of images from `split_even_odd`; outputs [2, 2, filters, height, width, N].

    Outputs that are pooled into one differ in the first two dimensions only, and come from the same 6x6 window.
    This takes 1.4 times the arithmetic, but faster matrix products and a third of the copying.
    """

    def __init__(self, previous: Layer, weight: Parameter, *, is_first: bool = False) -> None:
        self.kernel, self.is_first = Kernel(weight), is_first
        self.inputs, self.inputs_gradient = windows(previous.outputs), previous.gradient
        super().__init__(2, 2, len(weight.values), *self.inputs.shape[-3:])
        self.columns, gradient = torch.zeros(self.inputs.shape), torch.zeros(self.inputs.shape)
        rows, depth = self.kernel.matrix.shape
        self.column_matrix, self.columns_gradient = self.columns.view(depth, -1), gradient.view(depth, -1)
        self.output_matrix, self.output_gradient = self.outputs.view(rows, -1), self.gradient.view(rows, -1)
        self.matrix_t, self.column_matrix_t = self.kernel.matrix.t(), self.column_matrix.t()
        overlapping = windows(previous.gradient)
        thirds = [(row, column) for row in range(WINDOW // 2) for column in range(WINDOW // 2)]
        self.sums = [(overlapping[:, i, :, j], gradient[:, i, :, j]) for i, j in thirds]

    def forward(self) -> None:
        self.kernel.fill_matrix()
        self.columns.copy_(self.inputs)
        torch.mm(self.kernel.matrix, self.column_matrix, out=self.output_matrix)

    def backward(self) -> None:
        torch.mm(self.output_gradient, self.column_matrix_t, out=self.kernel.gradient)
        self.kernel.add_gradient()
        if self.is_first:  # the images need no gradient
            return
        torch.mm(self.matrix_t, self.output_gradient, out=self.columns_gradient)
        self.inputs_gradient.zero_()
        for total, part in self.sums:
            total.add_(part)


class MaxPool(Layer):
    """2x2 max-pooling of a convolution's outputs, then its bias and ReLU; outputs [filters, height, width, N].

    Of equal maxima the first in row-major order gets the gradient, as in torch.
    """

    def __init__(self, previous: Layer, bias: Parameter) -> None:
        super().__init__(*previous.outputs.shape[2:])
        flat, gradient = previous.outputs.flatten(3), previous.gradient.flatten(3)
        self.maximum, self.own_gradient = self.outputs.flatten(1), self.gradient.flatten(1)
        self.mask, self.row_masks = torch.zeros_like(self.maximum), torch.zeros_like(flat[0])
        self.row_maxima, self.row_gradients = torch.zeros_like(flat[0]), torch.zeros_like(flat[0])
        self.left, self.right, self.left_gradient, self.right_gradient = *flat.unbind(1), *gradient.unbind(1)
        self.upper, self.lower = self.row_maxima.unbind()
        self.upper_gradient, self.lower_gradient = self.row_gradients.unbind()
        self.bias, self.bias_gradient = bias.values[:, None], bias.gradient
        self.ones = torch.ones(self.maximum.shape[1])

    def forward(self) -> None:
        torch.maximum(self.left, self.right, out=self.row_maxima)
        torch.maximum(self.upper, self.lower, out=self.maximum)
        self.maximum.add_(self.bias).relu_()  # adding the bias after the maximum is equivalent

    def backward(self) -> None:
        self.own_gradient.mul_(torch.sign(self.maximum, out=self.mask))
        self.bias_gradient.addmv_(self.own_gradient, self.ones)
        torch.gt(self.lower, self.upper, out=self.mask)
        torch.mul(self.own_gradient, self.mask, out=self.lower_gradient)
        torch.sub(self.own_gradient, self.lower_gradient, out=self.upper_gradient)
        torch.gt(self.right, self.left, out=self.row_masks)
        torch.mul(self.row_gradients, self.row_masks, out=self.right_gradient)
        torch.sub(self.row_gradients, self.right_gradient, out=self.left_gradient)


class Linear(Layer):
    """A linear layer, inputs [N, in] to outputs [N, out]; all but the last one end with a ReLU."""

    def __init__(self, previous: Layer, weight: Parameter, bias: Parameter, *, is_last: bool = False) -> None:
        batch_size = len(previous.outputs)
        super().__init__(batch_size, len(bias.values))
        self.inputs, self.inputs_gradient, self.has_relu = previous.outputs, previous.gradient, not is_last
        self.weight, self.weight_gradient = weight
        self.bias, self.bias_gradient = bias
        self.weight_t, self.gradient_t = self.weight.t(), self.gradient.t()
        self.mask, self.ones = torch.zeros_like(self.outputs), torch.ones(batch_size)

    def forward(self) -> None:
        torch.addmm(self.bias, self.inputs, self.weight_t, out=self.outputs)
        if self.has_relu:
            self.outputs.relu_()

    def backward(self) -> None:
        if self.has_relu:
            self.gradient.mul_(torch.sign(self.outputs, out=self.mask))
        self.weight_gradient.addmm_(self.gradient_t, self.inputs)
        self.bias_gradient.addmv_(self.gradient_t, self.ones)
        torch.mm(self.gradient, self.weight, out=self.inputs_gradient)


class Pass:
    """The layers of a Net for one batch size, forward and backward."""

    def __init__(self, parameters: list[Parameter], batch_size: int) -> None:
        weight1, bias1, weight2, bias2, weight3, bias3, weight4, bias4, weight5, bias5 = parameters
        self.images = Layer(3, 2, 2, 16, 16, batch_size)
        first = Convolution(self.images, weight1, is_first=True)
        pooled = MaxPool(first, bias1)
        split = Reorder(pooled, split_even_odd)
        second = Convolution(split, weight2)
        features = MaxPool(second, bias2)
        flat = Reorder(features, lambda images: images.flatten(0, 2).t())
        hidden1 = Linear(flat, weight3, bias3)
        hidden2 = Linear(hidden1, weight4, bias4)
        self.logits = Linear(hidden2, weight5, bias5, is_last=True)
        self.layers = [first, pooled, split, second, features, flat, hidden1, hidden2, self.logits]
        self.backward_layers = self.layers[::-1]

    def run(self, images: Tensor, slopes: Tensor, log_probabilities: Tensor) -> None:
        """Compute the log probabilities [N, classes] of a batch, and add each parameter's gradient.

        Slopes are the derivatives of the cross-entropy by the log probabilities: -1 / N at the target, else 0.
        """
        self.images.outputs.copy_(images)
        for layer in self.layers:
            layer.forward()
        torch.log_softmax(self.logits.outputs, 1, out=log_probabilities)
        torch.exp(log_probabilities, out=self.logits.gradient)
        torch.add(slopes, self.logits.gradient, alpha=1 / len(slopes), out=self.logits.gradient)
        for layer in self.backward_layers:
            layer.backward()


class ManualTrainer:
    """Trains a Net on a CPU by SGD with momentum; equal to autograd and torch.optim.SGD up to rounding.

    The network's parameters and the optimizer's momentum buffers become views of this trainer's tensors, so they
    always hold the result. Load the optimizer's state before, not after.
    """

    def __init__(self, network: Net, optimizer: torch.optim.SGD, batch_size: int) -> None:
        _check_supported(network, optimizer)
        self.group, self.batch_size, self.classes = optimizer.param_groups[0], batch_size, network.fc3.out_features
        size = sum(parameter.numel() for parameter in network.parameters())
        self.weights, self.momentum = torch.zeros(size), torch.zeros(size)
        self.parameters: list[Parameter] = []
        start = 0
        for parameter in network.parameters():
            here = slice(start, start := start + parameter.numel())
            values, momentum = (flat[here].view(parameter.shape) for flat in (self.weights, self.momentum))
            values.copy_(parameter.detach())
            parameter.data = values
            saved = optimizer.state[parameter].get("momentum_buffer")
            if saved is not None:
                momentum.copy_(saved)
            if self.group["momentum"]:
                optimizer.state[parameter]["momentum_buffer"] = momentum
            self.parameters.append(Parameter(values, momentum))
        self.passes: dict[int, Pass] = {}

    def step(self, images_nchw: Tensor, targets: Tensor) -> Tensor:
        """Take a step on normalized images [N, 3, 32, 32] with targets int64 [N]; the loss."""
        losses, _ = self._train(images_nchw, targets, len(targets))
        return losses[0]

    def train_chunk(self, images_nchw: Tensor, targets: Tensor) -> Tensor:
        """Take a step on each batch, the last may be smaller; losses and correct predictions [steps, 2]."""
        whole = len(targets) // self.batch_size * self.batch_size
        parts = [(slice(whole), self.batch_size), (slice(whole, None), len(targets) - whole)]
        results = [self._train(images_nchw[part], targets[part], size) for part, size in parts if len(targets[part])]
        return torch.cat([torch.stack(each, dim=1) for each in results])

    def _train(self, images_nchw: Tensor, targets: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """The losses [steps] and the correct predictions [steps]."""
        if batch_size not in self.passes:
            self.passes[batch_size] = Pass(self.parameters, batch_size)
        run = self.passes[batch_size].run
        learning_rate, momentum = self.group["lr"], self.group["momentum"]
        batches = split_even_odd(images_nchw.unflatten(0, (-1, batch_size)).movedim(1, -1))
        targets = targets.view(-1, batch_size)
        slopes = one_hot(targets, self.classes).float().div_(-batch_size)
        log_probabilities = torch.zeros_like(slopes)
        with torch.inference_mode():  # faster than no_grad; all lasting tensors come from outside
            for batch in zip(batches, slopes, log_probabilities, strict=True):
                self.momentum.mul_(momentum)  # the layers add their gradients to it
                run(*batch)
                self.weights.add_(self.momentum, alpha=-learning_rate)
        hits = (log_probabilities.argmax(2) == targets).sum(1)
        return (slopes * log_probabilities).sum((1, 2)), hits.float()


def _check_supported(network: Net, optimizer: torch.optim.SGD) -> None:
    if type(optimizer) is not torch.optim.SGD:
        raise ValueError(f"optimizer: expected torch.optim.SGD, got {type(optimizer).__name__}")
    [group, *others] = optimizer.param_groups
    extras = [name for name in UNSUPPORTED if group[name]]
    if extras:
        raise ValueError(f"optimizer: expected SGD with a learning rate and momentum only, got {', '.join(extras)}")
    if others or [id(p) for p in group["params"]] != [id(p) for p in network.parameters()]:
        raise ValueError("optimizer: expected one group with the network's parameters in their order, got others")
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in network.parameters()):
        raise ValueError("network: expected float32 parameters on a CPU, got others; train it by autograd")
