"""VGG-19 narrowed without training: fewer channels, each of which stands for one of the teacher's own.

A student is trained in whitened units: the input of each of its kernels has no mean, variance 1 and no correlation,
which suits optimisers that treat all weights alike. `plain` turns it into the network that `vgg` takes.

He, Zhang and Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017, arXiv:1707.06168, for least
squares; Desjardins et al., *Natural Neural Networks*, arXiv:1507.00210, for whitened units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxstyle.networks.conv import conv3x3
from jaxstyle.networks.vgg import CONV_LAYERS, MEAN_BGR, VGG19, Params, Widths

BATCH = 8  # pictures at once where nothing is learned
SAMPLES = 100_000  # places of pictures that a layer is fitted to at the start
RIDGE = 1e-3  # of the mean variance of an input, added to every input's own in least squares and in whitening
Student = dict[str, dict[str, jax.Array]]  # kernels and biases by convolution, in whitened units


class Narrowed(NamedTuple):
    """What is known of the student before it learns.

    Attributes:
        kept: which channels of the teacher each convolution stands for.
        scales: the root mean square of each of those, after its ReLU.
        means: of a convolution's input, `[c]`.
        whitening: by convolution `[9 c, 9 c]`: turns a kernel's input into one of variance 1 without correlation.
    """

    kept: dict[str, jax.Array]
    scales: dict[str, jax.Array]
    means: dict[str, jax.Array]
    whitening: dict[str, jax.Array]


def mixed(image: jax.Array, kernel: jax.Array, *_: object, **__: object) -> jax.Array:
    """Return the convolution computed in bfloat16, as accelerators like it, and in float32 on the CPU."""
    if jax.default_backend() == "cpu":
        return conv3x3(image, kernel)
    return conv3x3(image.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)).astype(image.dtype)


def plain(student: Student, narrowed: Narrowed) -> Params:
    """Return the student's layers as `vgg` takes them, every channel in the units of the teacher's."""
    params, before = {}, jnp.ones(3)
    for name, layer in student.items():
        *_, inputs, width = layer["kernel"].shape
        kernel = (narrowed.whitening[name] @ layer["kernel"].reshape(-1, width)).reshape(3, 3, inputs, width)
        bias = layer["bias"] - jnp.einsum("hwio,i->o", kernel, narrowed.means[name])
        after = narrowed.scales[name]
        params[name] = {"kernel": jnp.einsum("hwio,i,o->hwio", kernel, 1 / before, after), "bias": bias * after}
        before = after
    return params


def start(teacher: Params, images: NDArray, widths: Widths) -> tuple[Student, Narrowed]:
    """Narrow `teacher` to `widths`: keep the channels that span the others best, and fit kernels by least squares.

    A layer is fitted to what the teacher has there before its ReLU, given what the narrowed layers before it give, at
    `SAMPLES` places of `images`.
    """
    rng, samples, places = np.random.default_rng(0), {}, {}
    look = jax.jit(VGG19.from_params(teacher, conv=mixed).apply)
    for first in range(0, len(images), BATCH):
        activations = look({"params": teacher}, images[first : first + BATCH] / np.float32(255))
        for name in CONV_LAYERS:
            before = activations[name]
            count = SAMPLES * len(before) // len(images)
            places.setdefault(name, []).append([rng.integers(length, size=count) for length in before.shape[:3]])
            samples.setdefault(name, []).append(np.asarray(before)[tuple(places[name][-1])])
            places[name][-1][0] += first
    student, narrowed = {}, Narrowed({}, {}, {}, {})
    x = images[..., ::-1] - np.array(MEAN_BGR, np.float32)
    for name, width in zip(CONV_LAYERS, sum(widths, ()), strict=True):
        if name[4] > "1" and name.endswith("_1"):
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
        before, (n, i, j) = np.concatenate(samples.pop(name)), np.concatenate(places[name], axis=1)
        channels = spanning(np.maximum(before, 0), width)
        scale = np.sqrt(np.mean(np.maximum(before[:, channels], 0) ** 2, axis=0))
        scale = np.maximum(scale, 1e-3 * scale.max())  # some channel may be dead
        mean, tap = x.mean((0, 1, 2)), np.arange(3)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = padded[n[:, None, None], i[:, None, None] + tap[:, None], j[:, None, None] + tap] - mean
        whitening = inverse_root(patches.reshape(len(n), -1))
        inputs = np.concatenate([patches.reshape(len(n), -1) @ whitening, np.ones((len(n), 1), np.float32)], axis=1)
        ridge = RIDGE * len(n) * np.eye(inputs.shape[1], dtype=np.float32)
        fitted = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (before[:, channels] / scale))
        student[name] = {"kernel": fitted[:-1].reshape(3, 3, -1, width), "bias": fitted[-1]}
        for part, value in zip(narrowed, (channels, scale, mean, whitening), strict=True):
            part[name] = jnp.asarray(value)
        kernel = jnp.asarray((whitening @ fitted[:-1]).reshape(3, 3, -1, width))
        bias = fitted[-1] - np.einsum("hwio,i->o", kernel, mean)
        parts = [
            np.asarray(conv3x3(jnp.asarray(x[first : first + BATCH]), kernel)) for first in range(0, len(x), BATCH)
        ]
        x = np.maximum(np.concatenate(parts) + bias, 0)
    return jax.tree.map(jnp.asarray, student), narrowed


def spanning(rows: NDArray, width: int) -> NDArray[np.int64]:
    """Return the `width` columns of `rows` from which linear maps predict the others best, chosen one by one."""
    rest, chosen = (rows.T @ rows).astype(np.float64), []
    least = 1e-9 * np.trace(rest)
    for _ in range(width):
        gain = np.sum(rest**2, axis=0) / np.maximum(np.diag(rest), least)
        gain[chosen] = -1
        chosen.append(int(np.argmax(gain)))
        column = rest[:, chosen[-1]]
        rest = rest - np.outer(column, column) / max(column[chosen[-1]], least)
    return np.array(chosen)


def inverse_root(rows: NDArray) -> NDArray[np.float32]:
    """Return the symmetric matrix that turns `rows` into ones of variance 1 without correlation, but for the ridge."""
    values, vectors = np.linalg.eigh((rows.T @ rows / len(rows)).astype(np.float64))
    values = np.maximum(values, 0) + RIDGE * values.mean()
    return ((vectors / np.sqrt(values)) @ vectors.T).astype(np.float32)
