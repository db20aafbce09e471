"""The tutorial's training step written out by hand: on four images, a step of autograd is mostly overhead."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tasks.core.model import Net
from tasks.core.training.layers import Convolution, Layer, Linear, MaxPool, Parameter, Reordered, even_and_odd_apart

NOT_WRITTEN_OUT = ("nesterov", "weight_decay", "dampening", "maximize")


class Pass:
    """The layers of a Net for one batch size, forward and backward."""

    def __init__(self, parameters: list[Parameter], batch_size: int) -> None:
        weight1, bias1, weight2, bias2, weight3, bias3, weight4, bias4, weight5, bias5 = parameters
        self.images = Layer(3, 2, 2, 16, 16, batch_size)
        first = Convolution(self.images, weight1, first=True)
        pooled = MaxPool(first, bias1)
        apart = Reordered(pooled, even_and_odd_apart)
        second = Convolution(apart, weight2)
        features = MaxPool(second, bias2)
        flat = Reordered(features, lambda images: images.flatten(0, 2).t())
        hidden1 = Linear(flat, weight3, bias3)
        hidden2 = Linear(hidden1, weight4, bias4)
        self.logits = Linear(hidden2, weight5, bias5, last=True)
        self.layers = [first, pooled, apart, second, features, flat, hidden1, hidden2, self.logits]
        self.backward_layers = self.layers[::-1]

    def run(self, images: Tensor, slopes: Tensor, log_probabilities: Tensor) -> None:
        """Fill the log probabilities [N, classes] of a batch, and add every gradient onto its parameter's.

        Slopes are the cross-entropy's by the log probabilities: -1 / N at the target, else 0.
        """
        self.images.outputs.copy_(images)
        for layer in self.layers:
            layer.forward()
        torch.log_softmax(self.logits.outputs, 1, out=log_probabilities)
        torch.exp(log_probabilities, out=self.logits.gradient)
        torch.add(slopes, self.logits.gradient, alpha=1 / len(slopes), out=self.logits.gradient)
        for layer in self.backward_layers:
            layer.backward()


class WrittenOut:
    """Trains a Net on a CPU by SGD with momentum, as autograd and torch.optim.SGD would, to rounding.

    The network's parameters and the optimizer's momentum buffers become views of what is trained here, so both
    always hold the result. Momentum that the optimizer brings is taken over; load its state before, not after.
    """

    def __init__(self, network: Net, optimizer: torch.optim.SGD, batch_size: int) -> None:
        _refuse_what_is_not_written_out(network, optimizer)
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
            found = optimizer.state[parameter].get("momentum_buffer")
            if found is not None:
                momentum.copy_(found)
            if self.group["momentum"]:
                optimizer.state[parameter]["momentum_buffer"] = momentum
            self.parameters.append(Parameter(values, momentum))
        self.passes: dict[int, Pass] = {}

    def step(self, images_nchw: Tensor, targets: Tensor) -> Tensor:
        """One step on a batch of normalized images [N, 3, 32, 32] with targets int64 [N]; its loss."""
        losses, _ = self._train(images_nchw, targets, len(targets))
        return losses[0]

    def train_stretch(self, images_nchw: Tensor, targets: Tensor) -> Tensor:
        """One step for each batch, the last perhaps smaller; the loss of each and how many were right, [steps, 2]."""
        whole = len(targets) // self.batch_size * self.batch_size
        parts = [(slice(whole), self.batch_size), (slice(whole, None), len(targets) - whole)]
        found = [self._train(images_nchw[part], targets[part], size) for part, size in parts if len(targets[part])]
        return torch.cat([torch.stack(each, dim=1) for each in found])

    def _train(self, images_nchw: Tensor, targets: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """The losses [steps], and how many of each batch were right [steps]."""
        if batch_size not in self.passes:
            self.passes[batch_size] = Pass(self.parameters, batch_size)
        run = self.passes[batch_size].run
        learning_rate, momentum = self.group["lr"], self.group["momentum"]
        batches = even_and_odd_apart(images_nchw.unflatten(0, (-1, batch_size)).movedim(1, -1))
        targets = targets.view(-1, batch_size)
        slopes = one_hot(targets, self.classes).float().div_(-batch_size)
        log_probabilities = torch.zeros_like(slopes)
        with torch.inference_mode():  # quicker than no_grad, and all that stays was made outside it
            for batch in zip(batches, slopes, log_probabilities, strict=True):
                self.momentum.mul_(momentum)  # the layers then add their gradients onto it
                run(*batch)
                self.weights.add_(self.momentum, alpha=-learning_rate)
        hits = (log_probabilities.argmax(2) == targets).sum(1)
        return (slopes * log_probabilities).sum((1, 2)), hits.float()


def _refuse_what_is_not_written_out(network: Net, optimizer: torch.optim.SGD) -> None:
    if type(optimizer) is not torch.optim.SGD:
        raise ValueError(f"optimizer: expected torch.optim.SGD, got {type(optimizer).__name__}")
    [group, *others] = optimizer.param_groups
    found = [name for name in NOT_WRITTEN_OUT if group[name]]
    if found:
        raise ValueError(f"optimizer: expected SGD with a learning rate and momentum only, got {', '.join(found)}")
    if others or [id(p) for p in group["params"]] != [id(p) for p in network.parameters()]:
        raise ValueError("optimizer: expected one group with the network's parameters in their order, got others")
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in network.parameters()):
        raise ValueError("network: expected float32 parameters on a CPU, got others; train it by autograd")
