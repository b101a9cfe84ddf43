"""ResNet-20 with the eight operators in plain PyTorch, as one would write them first, for `training_step.py` to time.

The arithmetic is that of `bibench_tf.algorithms`; nothing is tuned. Images are NCHW.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


class _Sign(torch.autograd.Function):
    """sign(x), sign(0) = +1, with dy * slope(x) as its gradient."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x)
        ctx.slope = slope
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * ctx.slope(x), None


def _clip(x):
    return (x.abs() <= 1).to(x.dtype)


def _triangle(x):
    return (2 - 2 * x.abs()).clamp(min=0)


def _fourier(x, omega=0.1, terms=9):
    slope = sum(torch.cos((2 * i + 1) * omega * x) for i in range(terms + 1))
    return 4 * omega / math.pi * slope * (x.abs() <= 1)


def _sign(x, slope=_clip):
    return _Sign.apply(x, slope)


def _channel_scale(weight):
    return weight.abs().mean(dim=(1, 2, 3), keepdim=True).detach()


class _Conv(nn.Conv2d):
    """BNN; the others change the inputs, the kernel or the outputs."""

    def __init__(self, channels, filters, stride, size):
        super().__init__(channels, filters, 3, stride, padding=1, bias=False)

    def forward(self, x):
        return self.outputs(self._conv_forward(self.inputs(x), self.kernel(self.weight), None))

    def inputs(self, x):
        return _sign(x)

    def kernel(self, weight):
        return _sign(weight)

    def outputs(self, y):
        return y


class _DoReFa(_Conv):
    def kernel(self, weight):
        return _channel_scale(weight) * _sign(weight)


class _XNOR(_DoReFa):
    def inputs(self, x):
        return x.abs().mean(dim=(1, 2, 3), keepdim=True).detach() * _sign(x)


class _BiReal(_DoReFa):
    def inputs(self, x):
        return _sign(x, _triangle)


class _XNORPlusPlus(_Conv):
    def __init__(self, channels, filters, stride, size):
        super().__init__(channels, filters, stride, size)
        self.channel = nn.Parameter(torch.ones(filters, 1, 1))
        self.height = nn.Parameter(torch.ones(1, size // stride, 1))
        self.width = nn.Parameter(torch.ones(1, 1, size // stride))

    def outputs(self, y):
        return y * self.channel * self.height * self.width


class _ReActNet(_DoReFa):
    def __init__(self, channels, filters, stride, size):
        super().__init__(channels, filters, stride, size)
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def inputs(self, x):
        return _sign(x + self.shift, _triangle)


class _ReCU(_Conv):
    def __init__(self, channels, filters, stride, size):
        super().__init__(channels, filters, stride, size)
        self.alpha = nn.Parameter(torch.rand(filters, 1, 1))

    def inputs(self, x):
        return _sign(x / torch.sqrt(x.var(dim=(1, 2, 3), keepdim=True) + 1e-5), _triangle)

    def kernel(self, weight, tau=0.9):
        centred = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        standard = centred * (2 * math.sqrt(2)) / torch.sqrt(centred.var(dim=(1, 2, 3), keepdim=True) + 1e-5)
        limit = (-standard.abs().mean() * math.log(2 - 2 * tau)).detach()
        clamped = torch.minimum(torch.maximum(standard, -limit), limit)
        return _sign(clamped, torch.ones_like)

    def outputs(self, y):
        return y * self.alpha


class _FDA(_Conv):
    def __init__(self, channels, filters, stride, size):
        super().__init__(channels, filters, stride, size)
        self.input_noise = self._bottleneck(channels)
        self.kernel_noise = self._bottleneck(9 * channels)

    def _bottleneck(self, fan_in):
        hidden = fan_in // 64
        if not hidden:
            return None
        return nn.Sequential(nn.Linear(fan_in, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, fan_in, bias=False))

    def inputs(self, x):
        noise = 0.1 * torch.sin(x)
        if self.input_noise is not None:
            noise = noise + self.input_noise(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return _sign(x, _fourier) + 0.1 * noise

    def kernel(self, weight):
        noise = 0.1 * torch.sin(weight)
        if self.kernel_noise is not None:
            noise = noise + self.kernel_noise(weight.flatten(1)).view_as(weight)
        return _channel_scale(weight) * (_sign(weight, _fourier) + 0.1 * noise)


class _Float(_Conv):
    def inputs(self, x):
        return x

    def kernel(self, weight):
        return weight


_CONVS = {
    "full_precision": _Float,
    "bnn": _Conv,
    "xnor": _XNOR,
    "dorefa": _DoReFa,
    "bireal": _BiReal,
    "xnorpp": _XNORPlusPlus,
    "reactnet": _ReActNet,
    "recu": _ReCU,
    "fda": _FDA,
}


class _Block(nn.Module):
    def __init__(self, conv, channels, filters, stride, size, activate):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, filters, stride, size), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = conv(filters, filters, 1, size // stride), nn.BatchNorm2d(filters)
        self.activate = activate
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.activate(self.bn1(self.conv1(x)))
        return self.activate(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet20(algorithm: str) -> nn.Module:
    """The network for images of 3 x 32 x 32 and ten classes."""
    conv = _CONVS[algorithm]
    activate = functional.relu if algorithm == "full_precision" else functional.hardtanh
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), _Activation(activate)]
    channels, size = 16, 32
    for filters in (16, 32, 64):
        for number in range(3):
            stride = 2 if number == 0 and filters > 16 else 1
            layers.append(_Block(conv, channels, filters, stride, size, activate))
            channels, size = filters, size // stride
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class _Activation(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
