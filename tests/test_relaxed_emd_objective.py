"""The objective of STROTSS: its terms, its regions, and a run of it."""

from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle.errors import InputError
from jaxstyle.losses.relaxed_emd import weighted_positions
from jaxstyle.losses.relaxed_emd_objective import RelaxedEmdObjective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import Adam
from jaxstyle.transfer.stylize import stylize

VALUE = jax.jit(RelaxedEmdObjective.value, static_argnames="network")
OBJECTIVE = RelaxedEmdObjective(layers=("relu1_1", "relu2_1"), positions=40, samples=30)
LEFT: Any = np.zeros((32, 40), np.float32)
LEFT[:, :20] = 1


def test_weighted_positions_have_the_density_of_the_weights():
    weights: Any = np.zeros((6, 8), np.float32)
    weights[1, 2], weights[4, 7] = 1, 3
    program = jax.jit(partial(weighted_positions, count=400))
    actual = np.asarray(program(weights, key=jax.random.key(0)))
    assert Counter(map(tuple, actual.tolist())) == {(1, 2): 100, (4, 7): 300}
    weights[4, 7] = 0  # a key whose largest number rounds to 1
    actual = jax.jit(partial(weighted_positions, count=5000))(weights > 0, key=jax.random.key(51))
    assert set(map(tuple, np.asarray(actual).tolist())) == {(1, 2)}


def test_too_few_positions_are_refused():
    with pytest.raises(InputError, match="1 positions"):
        RelaxedEmdObjective(positions=1)


@pytest.mark.slow
def test_the_total_is_the_formula_of_the_paper_at_each_scale(params, content, style):
    image = picture(32, 40, seed=7)
    targets: Any = None
    for scale, a in enumerate((16, 8, 4)):
        targets = make_targets(params, content, [style], objective=OBJECTIVE, part=(scale, False))
        _, terms = VALUE(OBJECTIVE, params, image, targets, network=VGG19())
        terms = {name: float(each) for name, each in terms.items()}
        rest = terms["relaxed_emd"] + terms["moments"] + terms["colors"] / a
        assert terms["total"] == pytest.approx((a * terms["self_similarity"] + rest) / (a + 2), rel=1e-5)
        assert terms["self_similarity"] > 0.01
    assert float(VALUE(OBJECTIVE, params, content, targets, network=VGG19())[1]["self_similarity"]) < 1e-5
    without = make_targets(params, content, [style], objective=OBJECTIVE.without_content())
    _, terms = VALUE(OBJECTIVE, params, image, without, network=VGG19())
    rest = [float(terms[name]) for name in ("relaxed_emd", "moments", "colors")]
    assert float(terms["total"]) == pytest.approx(sum(rest) / 2, rel=1e-5)


@pytest.mark.slow
def test_a_region_reads_only_its_part_of_the_image_and_vectors_of_its_style(params, content, style):
    styles, masks = [style, picture(32, 32, seed=5)], jnp.stack([LEFT, 0 * LEFT])
    targets: Any = make_targets(params, content, styles, objective=OBJECTIVE, content_masks=masks)
    np.testing.assert_allclose(targets.shares, [0.5, 0])
    pixels, colors = np.asarray(style).reshape(-1, 3), np.asarray(targets.styles[0])[:, :3]
    assert np.abs(colors[:, None] - pixels[None]).max(-1).min(-1).max() < 1e-6
    changed = np.where(LEFT[..., None] > 0, content, 1 - np.asarray(content))
    changed[:, :32] = np.asarray(content)[:, :32]  # receptive fields reach over the border of the region

    def style_terms(image: Any) -> list[float]:
        _, terms = VALUE(OBJECTIVE, params, image, targets, network=VGG19())
        return [float(terms[name]) for name in ("relaxed_emd", "moments", "colors")]

    np.testing.assert_allclose(style_terms(changed), style_terms(content), rtol=1e-5)


@pytest.mark.slow
def test_style_masks_choose_vectors_and_style_weights_mix_the_distances_of_the_styles(params, content, style):
    styles, image = [style, picture(32, 32, seed=5)], picture(32, 40, seed=7)
    mask: Any = np.zeros(style.shape[:2], np.float32)
    mask[:9] = 1
    masked: Any = make_targets(params, content, styles, objective=OBJECTIVE, style_masks=[mask, None])
    colors = np.asarray(masked.styles[0])[: OBJECTIVE.samples // 2, :3]
    of_mask, of_rest = (np.asarray(rows).reshape(-1, 3) for rows in (style[:9], style[9:]))
    nearest = [np.abs(colors[:, None] - rows[None]).max(-1).min(-1) for rows in (of_mask, of_rest)]
    assert nearest[0].max() < 1e-6 < nearest[1].min()

    def mixed(weights: Any) -> np.ndarray:
        targets = make_targets(params, content, styles, objective=OBJECTIVE, style_weights=weights)
        _, terms = VALUE(OBJECTIVE, params, image, targets, network=VGG19())
        return np.array([terms[name] for name in ("relaxed_emd", "moments", "colors")])

    np.testing.assert_allclose(mixed([3.0, 1.0]), 0.75 * mixed([1.0, 0.0]) + 0.25 * mixed([0.0, 1.0]), rtol=1e-5)


@pytest.mark.slow
def test_a_run_lowers_the_total(params, content, style):
    optimizer = Adam(learning_rate=0.01, b1=0.0, b2=0.99, parametrization="laplacian", clip=False)
    options: Any = {"objective": OBJECTIVE.without_content(), "optimizer": optimizer, "steps": 30, "scales": 1}
    totals = np.asarray(stylize(params, content, style, **options).history["total"])
    assert totals[-5:].mean() < 0.9 * totals[:5].mean()
