"""The objective of nearest neighbors: its targets, its passes, and a run of it by `stylize` and by `fit`."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import image_features
from jaxstyle.losses.loss_terms import terms
from jaxstyle.losses.neighbor_objective import FixedTargets, NeighborObjective, SplitTargets
from jaxstyle.losses.neighbors import hypercolumns, orientations
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.pixel import total_variation
from jaxstyle.losses.relaxed_emd_objective import RelaxedEmdObjective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import Adam
from jaxstyle.runtime import estimate, fit, iterate, make_problem, memory
from jaxstyle.runtime.problem import Problem
from jaxstyle.transfer.resize import resize_style
from jaxstyle.transfer.stylize import stylize

OBJECTIVE = NeighborObjective(layers=("relu1_1", "relu2_1"), rotations=2)
VALUE = jax.jit(NeighborObjective.value, static_argnames="network")
OPTIMIZER = Adam(learning_rate=0.01, parametrization="laplacian", clip=False)


KEY = jax.random.key(1)
LEFT: Any = np.zeros((32, 40), np.float32)
LEFT[:, :20] = 1


def columns(params: Any, image: Any, *, turned: int = 1, flips: bool = False) -> np.ndarray:
    """Return the hypercolumns of orientations of an image, `[n, C]`."""
    result = []
    for each in orientations(np.asarray(image), rotations=turned, flips=flips):
        features = image_features(params, jnp.asarray(each), network=VGG19(), layers=OBJECTIVE.layers)
        result.append(hypercolumns(features, (each.shape[0] // 4, each.shape[1] // 4)))
    return np.concatenate([np.asarray(each).reshape(-1, each.shape[-1]) for each in result])


def distances(vectors: Any, rows: np.ndarray) -> np.ndarray:
    """Return the largest difference of each vector from the nearest of some rows."""
    result = np.abs(np.asarray(vectors).reshape(-1, 1, rows.shape[-1]) - rows[None])
    return result.max(-1).min(-1)


def test_style_layers_are_some_of_the_layers_and_the_statistic_is_known():
    assert replace(OBJECTIVE, style_layers="relu1_1").style_layers == ("relu1_1",)
    with pytest.raises(InputError, match=r"statistic 'mean' is unknown"):
        replace(OBJECTIVE, statistic="mean")
    with pytest.raises(InputError, match=r"relu5_1.*relu1_1, relu2_1"):
        replace(OBJECTIVE, style_layers=("relu1_1", "relu5_1"))


def test_statistics_batches_and_tiles_are_refused(params, content, style):
    for words, changed in {
        "not their statistics": {"styles": [{}]},
        "jax.vmap": {"content": content[None]},
        "tile_pixels=None": {"network": VGG19(tile_pixels=256)},
    }.items():
        options = {"content": content, "styles": [style], "network": VGG19(), **changed}
        with pytest.raises(InputError, match=words):
            OBJECTIVE.make_targets(params, options.pop("content"), options.pop("styles"), **options)


@pytest.mark.slow
def test_targets_are_vectors_of_the_style_of_each_region(params, content, style):
    styles = [style, picture(32, 32, seed=5)]
    masks = jnp.stack([LEFT, 1 - LEFT])
    targets: Any = make_targets(params, content, styles, objective=OBJECTIVE, content_masks=masks)
    assert isinstance(targets, FixedTargets) and targets.vectors.shape[:2] == (8, 10)
    for region, own in ((np.s_[:, :4], styles[0]), (np.s_[:, 6:], styles[1])):
        assert distances(targets.vectors[region], columns(params, own, turned=2)).max() < 1e-5


@pytest.mark.slow
def test_a_style_mask_leaves_only_the_vectors_of_its_part(params, content, style):
    mask: Any = np.zeros(style.shape[:2], np.float32)
    mask[:16] = 1
    objective = replace(OBJECTIVE, rotations=1, flips=True)
    targets: Any = make_targets(params, content, [style], objective=objective, style_masks=[mask])
    rows = columns(params, style, flips=True).reshape(2, 9 * 8, -1)
    assert distances(targets.vectors, rows[:, : 4 * 8].reshape(-1, rows.shape[-1])).max() < 1e-5
    assert distances(targets.vectors, rows[0]).max() > 1e-5  # some are of the mirror image
    split: Any = make_targets(params, content, [style], objective=objective, style_masks=[mask], part=(1, True))
    [[usable, mirrored]] = split.usable
    assert mirrored.keys() == usable.keys() and {name: each.mean() for name, each in usable.items()} == pytest.approx(
        {"relu1_1": 16 / 36, "relu2_1": 8 / 18}
    )


@pytest.mark.slow
def test_a_narrow_mask_leaves_only_its_part_also_at_the_border_or_between_sampled_positions(params, content):
    style, objective = picture(64, 64, seed=5), replace(OBJECTIVE, rotations=1, limit=4)
    all_rows = columns(params, style).reshape(16, 16, -1)
    for first, end in ((0, 7), (31, 33)):
        mask: Any = np.zeros((512, 512), np.float32)
        mask[8 * first : 8 * end] = 1
        mask = resize_style(mask, 1 / 8, layers=OBJECTIVE.layers)  # has small values beside the large ones
        targets: Any = make_targets(params, content, [style], objective=objective, style_masks=[mask])
        near = all_rows[7:9] if first else all_rows[:2]
        assert distances(targets.vectors, near.reshape(-1, near.shape[-1])).max() < 1e-5
        split: Any = make_targets(params, content, [style], objective=objective, style_masks=[mask], part=(1, True))
        [usable] = split.usable[0]
        for each in usable.values():
            assert each.all(1).any() and not each[0 if first else 2].any() and not each[3].any()


@pytest.mark.slow
def test_style_weights_mix_the_targets_and_the_losses_of_the_styles(params, content, style):
    styles = [style, picture(32, 32, seed=5)]

    def at(weights: Any, part: Any) -> Any:
        return make_targets(params, content, styles, objective=OBJECTIVE, style_weights=weights, part=part)

    first, second, both = (at(weights, (0, False)).vectors for weights in ([1, 0], [0, 1], [3, 1]))
    np.testing.assert_allclose(both, 0.75 * first + 0.25 * second, atol=1e-5)

    def last(weights: Any) -> float:
        targets = at(weights, (1, True))
        return float(VALUE(OBJECTIVE, params, content, targets, network=VGG19())[1]["neighbors"])

    assert last([3, 1]) == pytest.approx(0.75 * last([1, 0]) + 0.25 * last([0, 1]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["regions", "weights"])
def test_style_terms_and_the_color_term_are_those_of_statistics(how, params, content, style):
    options: dict[str, Any] = {"style_weights": [1.0, 3.0]}
    if how == "regions":
        options = {"content_masks": jnp.stack([LEFT, 1 - LEFT])}
    framed = picture(40, 48, seed=8)
    inner, framed = framed[8:-8, 8:-8], framed.at[:8].set(0.0)  # borders are left out
    styles, image = [style, picture(32, 32, seed=5)], picture(32, 40, seed=7)
    layers = dict.fromkeys(OBJECTIVE.layers, 1.0)
    classic = Objective(content={}, style=layers)
    expected = terms(
        params, image, make_targets(params, content, styles, objective=classic, **options), objective=classic
    )

    def only_colors(_: Any, image: Any) -> Any:
        return {"colors": image}

    sliced = Objective(content={}, style={"colors": 1.0}, statistic="sliced")
    of_colors = make_targets(params, content, styles, objective=sliced, network=only_colors, key=KEY, **options)
    colors = terms(params, image, of_colors, objective=sliced, network=only_colors)["style/colors"]
    assert colors > 0.001
    of_frame: Any = make_targets(params, content, [framed], objective=replace(OBJECTIVE, color_term=True), key=KEY)
    of_inner: Any = make_targets(params, content, [inner], objective=sliced, network=only_colors, key=KEY)
    np.testing.assert_allclose(of_frame.colors.style["colors"].values, of_inner.style["colors"].values, atol=2e-3)
    objective = replace(OBJECTIVE, style_layers=OBJECTIVE.layers, style_weight=0.5, color_term=True, color_weight=2.0)
    for part in ((0, False), (1, True)):
        targets: Any = make_targets(params, content, styles, objective=objective, part=part, key=KEY, **options)
        _, metrics = VALUE(objective, params, image, targets, network=VGG19())
        assert sorted(metrics) == sorted(objective.term_names)
        np.testing.assert_allclose(metrics["colors"], colors, rtol=1e-5)
        style_terms = [metrics[f"style/{layer}"] for layer in layers]
        np.testing.assert_allclose(style_terms, [expected[f"style/{layer}"] for layer in layers], rtol=1e-4)
        mean = sum(style_terms) / 2
        np.testing.assert_allclose(metrics["total"], metrics["neighbors"] + 0.5 * mean + 2 * colors, rtol=1e-5)


@pytest.mark.slow
def test_without_content_the_targets_are_those_of_the_image(params, content, style):
    image, texture = picture(32, 40, seed=7), OBJECTIVE.without_content()
    of_image: Any = make_targets(params, image, [style], objective=OBJECTIVE)
    for part in ((0, False), (1, False)):
        actual: Any = make_targets(params, content, [style], objective=texture, image=image, part=part)
        np.testing.assert_array_equal(actual.vectors, of_image.vectors)


@pytest.mark.slow
def test_a_run_has_a_last_pass_with_layers_matched_anew_and_fit_equals_stylize_also_if_resumed(
    params, content, style, tmp_path, compilations
):
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
    compilations.clear()
    made = fit(problem)
    assert 0 < len(compilations) <= 3 + 3 * 2 + 2  # the targets, two of each entry of the schedule, two small ones
    assert made.image is not None and made.stop_reason == "done"
    compilations.clear()
    last = problem.schedule[-1].steps  # in which a rounding error may change a match
    np.testing.assert_allclose(made.history["neighbors"][:-last], values[:-last], rtol=1e-3)
    np.testing.assert_allclose(made.history["neighbors"][-last:], values[-last:], rtol=0.1)
    np.testing.assert_allclose(made.image, result.image, atol=0.02)
    for steps in (first + 2, None):  # the targets of the second scale depend on its initial image
        resumed = fit(problem, checkpoint=tmp_path, every=1, until=steps)
    assert resumed.resumed_at == first + 2
    np.testing.assert_array_equal(resumed.image, made.image)
    assert compilations == []
    options["objective"] = replace(OBJECTIVE, split_pass=False)
    other = stylize(params, content, style, **options)
    assert np.abs(np.asarray(other.image) - np.asarray(result.image)).max() > 1e-4


@pytest.mark.slow
def test_an_estimate_includes_the_memory_of_matching_which_is_not_started_if_it_does_not_fit(
    params, content, style, monkeypatch
):
    options: dict[str, Any] = {"objective": OBJECTIVE, "optimizer": OPTIMIZER, "steps": 4, "scales": 1}
    problem = make_problem(params, content, style, **options)
    monkeypatch.setattr(memory, "in_use", lambda: 0)
    columns_and_targets = 2 * sum(params[f"conv{layer[4:]}"]["kernel"].shape[-1] for layer in OBJECTIVE.layers) * 80 * 4
    need = problem.memory_of_targets(0)
    assert columns_and_targets < need < 1000 * columns_and_targets
    with monkeypatch.context() as patch:  # a custom objective that cannot be traced, whose memory is unknown
        patch.setattr(NeighborObjective, "make_targets", lambda *inputs, **_: inputs[3][0][inputs[3][0] > 0.5])
        assert problem.memory_of_targets(0) == 0
    monkeypatch.setattr(Problem, "memory_of_targets", lambda problem, number: 2**60)
    monkeypatch.setattr(Problem, "at", None)
    costs = estimate(problem)
    assert costs.fits is False and costs.seconds is None and costs.memory > costs.limit


@pytest.mark.slow
def test_an_image_of_a_batch_is_the_run_with_its_weight(params, content, style):
    """As in a sweep: the targets of each image depend on its own result so far."""
    options: dict[str, Any] = {"optimizer": OPTIMIZER, "steps": 9, "scales": (20, 40), "key": jax.random.key(0)}
    fixed = replace(OBJECTIVE, split_pass=False)  # in the last pass rounding may change a match
    single = [
        make_problem(params, content, style, objective=replace(fixed, content_share=share), **options)
        for share in (0.2, 0.9)
    ]
    numbers = jax.tree.map(lambda *each: np.stack(each), *(problem.objective for problem in single))
    *_, last = iterate(replace(single[0], objective=numbers, batch_size=2))
    images = np.asarray(last.image)
    for image, problem in zip(images, single, strict=True):
        np.testing.assert_allclose(image, list(iterate(problem))[-1].image, atol=1e-3)
    assert np.abs(images[0] - images[1]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", [OBJECTIVE, RelaxedEmdObjective(layers=OBJECTIVE.layers, positions=40, samples=30)]
)
def test_total_variation_is_periodic_if_the_network_is(objective, params, content, style):
    network = VGG19(padding="circular")
    targets: Any = make_targets(params, content, [style], objective=objective, network=network)
    tv = jax.jit(type(objective).value, static_argnames="network")(objective, params, content, targets, network=network)
    np.testing.assert_allclose(tv[1]["tv"], total_variation(content, circular=True), rtol=1e-5)
