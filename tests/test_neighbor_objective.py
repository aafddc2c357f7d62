"""The objective of nearest neighbors: its targets, its passes, and a run of it by `stylize` and by `fit`."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle.errors import InputError
from jaxstyle.losses.neighbor_objective import (
    FixedTargets,
    NeighborObjective,
    SplitTargets,
    _columns,
)
from jaxstyle.losses.neighbors import orientations
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import Adam
from jaxstyle.runtime import fit, make_problem
from jaxstyle.transfer.stylize import stylize

OBJECTIVE = NeighborObjective(layers=("relu1_1", "relu2_1"), rotations=2)
OPTIMIZER = Adam(learning_rate=0.01, parametrization="laplacian", clip=False)


def test_statistics_and_weights_of_styles_are_refused(params, content, style):
    with pytest.raises(InputError, match="pictures"):
        make_targets(params, content, [{}], objective=OBJECTIVE)
    with pytest.raises(InputError, match="style weights"):
        make_targets(params, content, [style], objective=OBJECTIVE, style_weights=[1.0])


@pytest.mark.slow
def test_targets_are_vectors_of_the_style_of_each_region(params, content, style):
    styles = [style, picture(32, 32, seed=5)]
    left: Any = np.zeros((32, 40), np.float32)
    left[:, :20] = 1
    masks = jnp.stack([left, 1 - left])
    targets: Any = make_targets(params, content, styles, objective=OBJECTIVE, content_masks=masks)
    assert isinstance(targets, FixedTargets) and targets.vectors.shape[:2] == (8, 10)
    for region, own in ((np.s_[:, :4], styles[0]), (np.s_[:, 6:], styles[1])):
        turned = orientations(np.asarray(own), rotations=2)
        columns = [_columns(params, each, network=VGG19(), layers=OBJECTIVE.layers) for each in turned]
        rows = np.concatenate([np.asarray(each).reshape(-1, each.shape[-1]) for each in columns])
        for vector in np.asarray(targets.vectors[region]).reshape(-1, rows.shape[-1]):
            assert np.abs(rows - vector).max(-1).min() < 1e-5


@pytest.mark.slow
def test_a_run_has_a_last_pass_with_layers_matched_anew_and_fit_equals_stylize(params, content, style):
    options: dict[str, Any] = {"objective": OBJECTIVE, "optimizer": OPTIMIZER, "steps": 24, "scales": (20, 40)}
    options["key"] = jax.random.key(0)
    result = stylize(params, content, style, **options)
    values = np.asarray(result.history["neighbors"])
    problem = make_problem(params, content, style, **options)
    sizes = [(scale.height, scale.width) for scale in problem.schedule]
    assert sizes[-1] == sizes[-2] == (32, 40) and len(sizes) == 3
    image = problem.initial_image(problem.schedule[-1], None)
    assert isinstance(problem.targets(2, image), SplitTargets)
    first = problem.schedule[0].steps
    assert values[first - 1] < values[0]
    made = fit(problem)
    assert made.image is not None and made.stop_reason == "done"
    last = problem.schedule[-1].steps  # in which a rounding error may change a match
    np.testing.assert_allclose(made.history["neighbors"][:-last], values[:-last], rtol=1e-3)
    np.testing.assert_allclose(made.history["neighbors"][-last:], values[-last:], rtol=0.1)
    np.testing.assert_allclose(made.image, result.image, atol=0.02)
    options["objective"] = replace(OBJECTIVE, split_pass=False)
    other = stylize(params, content, style, **options)
    assert np.abs(np.asarray(other.image) - np.asarray(result.image)).max() > 1e-4
