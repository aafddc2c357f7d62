"""Leading eigenvectors of the Hessian of the loss with respect to the image, as pictures.

    python scripts/curvature.py examples/cat.jpg examples/strokes.jpg curvature.png

The Hessian H of the loss at a stylized picture has (3 H W)^2 entries and is not computed. A product with it is the
derivative of the gradient in a direction, Hv = d/de grad(x + e v), a `jax.jvp` of `jax.grad`: a few gradients' cost.

The Lanczos algorithm computes from such products an orthonormal basis Q of span(v, Hv, H^2 v, ...), in which H is
tridiagonal: H Q = Q T + r e^T. Eigenpairs (l, y) of T approximate those of H, l and Q y, the outermost first. Rounding
would destroy the orthogonality of Q, so each new vector is orthogonalized against all previous ones, twice.
One more product gives the residual of each pair, |H v - l v| / |l|.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from terminal import start
from tyro.conf import Positional

from jaxstyle import Objective, init_state, load_image, load_params, make_targets, run_steps, save_image, terms, total
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.networks.vgg import Params

SIZE, STEPS, PRODUCTS, PAIRS, ZOOM = 128, 60, 40, 5, 3


def lanczos(product: Callable, start: jax.Array, products: int, pairs: int) -> tuple[np.ndarray, jax.Array]:
    """Return the `pairs` largest eigenvalues by magnitude of a symmetric `product`, and their eigenvectors."""
    basis, diagonal, beside = [start / jnp.linalg.norm(start)], [], []
    for _ in range(products):
        new = product(basis[-1])
        diagonal.append(jnp.vdot(basis[-1], new))
        for _ in range(2):
            new -= sum(jnp.vdot(each, new) * each for each in basis)
        beside.append(jnp.linalg.norm(new))
        basis.append(new / beside[-1])
    tridiagonal = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(tridiagonal.astype(np.float64))
    leading = np.argsort(-np.abs(values))[:pairs]
    directions = jnp.tensordot(jnp.asarray(vectors[:, leading].T, jnp.float32), jnp.stack(basis[:-1]), axes=1)
    return values[leading], directions


def hessian_product(params: Params, content: jax.Array, style: jax.Array) -> tuple[Callable, jax.Array]:
    """Return the function v -> Hv at the result of `STEPS` steps from `content`, and that picture."""
    objective = Objective()
    targets = make_targets(params, content, style, objective=objective)
    picture = run_steps(init_state(content, objective=objective), params, targets, objective, steps=STEPS)[0].image

    @jax.jit
    def product(params: Params, targets: Any, v: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda x: total(objective, terms(params, x, targets, objective=objective)))
        return jax.jvp(gradient, (picture,), (v,))[1]

    return partial(product, params, targets), picture  # arguments: XLA would fold constants for minutes


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path]) -> None:
    """Save the picture and the eigenvectors, and print eigenvalues and residuals."""
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    product, picture = hessian_product(load_params("auto"), photograph, painting)
    values, vectors = lanczos(product, jax.random.normal(jax.random.key(0), photograph.shape), PRODUCTS, PAIRS)
    cells, labels = [picture], ["the picture"]
    for number, (value, vector) in enumerate(zip(values, vectors, strict=True), 1):
        residual = float(jnp.linalg.norm(product(vector) - value * vector)) / abs(value)
        print(f"eigenvalue {number}: {value:.5g}, residual {residual:.1e}", flush=True)
        cells.append(jnp.clip(0.5 + 0.5 * vector / jnp.quantile(jnp.abs(vector), 0.99), 0, 1))
        labels.append(f"eigenvalue {value:.3g}")
    cells = [np.kron(each, np.ones((ZOOM, ZOOM, 1))) for each in cells]
    save_image(output, contact_sheet(cells, labels, columns=3))


if __name__ == "__main__":
    start(main)
