"""A problem small enough for NumPy: a linear network of two layers, its terms with their gradients, and lbfgs.

Everything here is computed in float64, by other code than `jaxstyle`'s.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import Targets
from jaxstyle.optim.optimizers import Adam

HEIGHT, WIDTH = 4, 6
RNG = np.random.default_rng(0)
PARAMS: Any = {"full": RNG.normal(size=(3, 4)), "half": RNG.normal(size=(3, 2))}
CONTENT: Any
STYLE: Any
START: Any
CONTENT, STYLE, START = RNG.uniform(0.1, 0.9, (3, HEIGHT, WIDTH, 3))
OBJECTIVE = Objective(content={"full": 0.7}, style={"full": 2.0, "half": 5.0}, tv=0.3, range_penalty=11.0)


def network(params: Any, image: Any) -> dict[str, Any]:
    """Return two linear layers, the second at half the size."""
    return {"full": image @ params["full"], "half": image[::2, ::2] @ params["half"]}


def gram(features: Any) -> Any:
    """Return the Gram matrix of `[H, W, C]`, a mean over pixels."""
    rows = features.reshape(-1, features.shape[-1])
    return rows.T @ rows / len(rows)


def evaluate(image: Any, *, pixel_range: float = 1.0) -> tuple[dict[str, float], dict[str, Any], dict[str, float]]:
    """Return each term of `image`, its gradient by the image, and the factor that normalizes the gradient."""
    image = np.asarray(image, np.float64)
    terms, gradients, factors = {}, {}, {"tv": 1.0, "range_penalty": 1.0}
    seen, content, style = (network(PARAMS, each) for each in (image, CONTENT, STYLE))

    def enter(name: str, value: float, slope: np.ndarray) -> None:
        layer, gradient = name.partition("/")[2], np.zeros_like(image)
        gradient[:: HEIGHT // len(slope), :: HEIGHT // len(slope)] = slope @ PARAMS[layer].T
        terms[name], gradients[name], factors[name] = value, gradient, 1 / (np.abs(slope).sum() + 1e-8)

    away, energy = seen["full"] - content["full"], np.sum(content["full"] ** 2)
    enter("content/full", np.sum(away**2) / energy, 2 * away / energy)
    for layer in OBJECTIVE.style_layers:
        x, target = seen[layer], gram(style[layer])
        away, energy = gram(x) - target, np.sum(target**2)
        enter(f"style/{layer}", np.sum(away**2) / energy, 4 * x @ away / (x[..., 0].size * energy))
    down, right = (pixel_range * np.diff(image, axis=axis) for axis in (0, 1))
    terms["tv"] = np.mean(down**2) + np.mean(right**2)
    gradients["tv"] = np.zeros_like(image)
    for axis, step in ((0, down), (1, right)):
        around = [(1, 1) if axis == own else (0, 0) for own in range(3)]
        gradients["tv"] -= 2 * pixel_range / step.size * np.diff(np.pad(step, around), axis=axis)
    excess = pixel_range * (image - np.clip(image, 0, 1))
    terms["range_penalty"], gradients["range_penalty"] = np.mean(excess**2), 2 * pixel_range * excess / excess.size
    return terms, gradients, factors


def weighted(objective: Objective, values: dict[str, Any], *, range_penalty: bool = True) -> Any:
    """Return the weighted sum of the values of each term."""
    result = sum(weight * values[f"content/{layer}"] for layer, weight in objective.content.items())
    result = result + sum(weight * values[f"style/{layer}"] for layer, weight in objective.style.items())
    result = result + objective.tv * values["tv"]
    return result + objective.range_penalty * values["range_penalty"] if range_penalty else result


STATISTICS: Any = {
    layer: Moments(features.mean((0, 1)), gram(features)) for layer, features in network(PARAMS, STYLE).items()
}
TARGETS: Any = Targets({"full": network(PARAMS, CONTENT)["full"]}, STATISTICS)


def adam(
    image: Any, *, objective: Objective, optimizer: Adam, steps: int, window: int = 0
) -> tuple[list[np.ndarray], list[float], int]:
    """Return the iterates of adam on plain pixels, the totals, and the step at which the total has levelled off."""
    result, totals, (mean, square) = [np.asarray(image)], [], np.zeros((2, *np.shape(image)))
    first, second, rate = optimizer.b1, optimizer.b2, optimizer.learning_rate
    for k in range(1, steps + 1):
        values, gradients, _ = evaluate(result[-1])
        totals.append(weighted(objective, values, range_penalty=False))
        if optimizer.tolerance and k > window and totals[-1] >= (1 - optimizer.tolerance) * totals[-1 - window]:
            return result, totals, k
        gradient = weighted(objective, gradients)
        mean, square = first * mean + (1 - first) * gradient, second * square + (1 - second) * gradient**2
        step = mean / (1 - first**k) / (np.sqrt(square / (1 - second**k)) + optimizer.eps)
        result.append(np.clip(result[-1] - rate * step, 0, 1))
    return result, totals, 0


def lbfgs_direction(xs: Sequence[Any], gradients: Sequence[Any], *, history_size: int) -> np.ndarray:
    """Return the step of lbfgs down from the last of `xs`: the two-loop recursion over the latest pairs with s.y > 0.

    Without a pair it is the gradient, cut to length 1.

    Nocedal and Wright, *Numerical Optimization*, algorithm 7.4.
    """
    points, slopes = (np.asarray(each, np.float64).reshape(len(xs), -1) for each in (xs, gradients))
    steps = zip(np.diff(points, axis=0), np.diff(slopes, axis=0), strict=True)
    pairs = [(s, y) for s, y in steps if s @ y > 0][-history_size:]
    result, alphas = slopes[-1].copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ result / (s @ y))
        result -= alphas[-1] * y
    if not pairs:
        return (min(1.0, 1 / np.linalg.norm(result)) * result).reshape(np.shape(xs[-1]))
    s, y = pairs[-1]
    result *= s @ y / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        result += (alpha - y @ result / (s @ y)) * s
    return result.reshape(np.shape(xs[-1]))
