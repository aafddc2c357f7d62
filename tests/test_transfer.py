import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import color, losses
from jaxstyle.coloring import recolor
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.objective import terms
from jaxstyle.optimize import init, run
from jaxstyle.reading import image_features
from jaxstyle.scales import Scale, plan, resize
from jaxstyle.stage import enlarge, start_at, targets_at
from jaxstyle.targets import make_targets, summarize_style
from jaxstyle.transfer import reconstruct, stylize, texture

LAYERS = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}  # few, to compile quickly
LBFGS = Config(**LAYERS)
ADAM = Config(optimizer="adam", **LAYERS)
SHALLOW = Config(scales=1)
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)
BOTH = pytest.mark.parametrize("config", [LBFGS, ADAM], ids=["lbfgs", "adam"])
ADAM_SOON = pytest.mark.parametrize(
    "config", [pytest.param(LBFGS, marks=pytest.mark.slow), ADAM], ids=["lbfgs", "adam"]
)


@BOTH
def test_the_picture_comes_closer_to_the_style(params, content, style, config):
    image, trace = stylize(params, content, style, weights=WEIGHTS, config=config, steps=30)
    assert image.shape == content.shape and image.dtype == jnp.float32
    assert 0 <= image.min() and image.max() <= 1
    for name in ("total", "style/relu1_1", "style/relu2_1"):
        assert trace[name][-1] < 0.9 * trace[name][0]


@ADAM_SOON
def test_jit_of_the_whole_equals_its_parts(params, content, style, config):
    whole = jax.jit(lambda *pictures: stylize(params, *pictures, weights=WEIGHTS, config=config, steps=3).image)
    np.testing.assert_allclose(
        whole(content, style), stylize(params, content, style, weights=WEIGHTS, config=config, steps=3).image, atol=1e-4
    )


@pytest.mark.slow
@BOTH
def test_the_final_image_can_be_differentiated_by_a_weight(params, content, style, config):
    """Reverse and forward mode agree with each other and, in float64, with a central difference."""
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, content, style))

        @jax.jit
        def brightness(weight):
            weights = WEIGHTS._replace(style=dict.fromkeys(config.style_layers, weight))
            return stylize(*arguments, weights=weights, config=config, steps=2).image[8:, ::3].mean()

        at, step = jnp.asarray(6.0), 1e-5
        reverse, forward = jax.grad(brightness)(at), jax.jvp(brightness, (at,), (jnp.ones(()),))[1]
        assert reverse == pytest.approx(float(forward), rel=1e-6)
        difference = (brightness(at + step) - brightness(at - step)) / (2 * step)
        assert reverse == pytest.approx(float(difference), rel=1e-3)
        assert reverse != 0


@pytest.mark.slow
def test_the_final_image_can_be_differentiated_by_the_content(params, content, style):
    """Along one direction, held to a central difference in float64."""
    config = dataclasses.replace(ADAM, learning_rate=0.01)
    with jax.enable_x64(True):
        network, content, style = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, content, style))
        direction, step = jnp.cos(jnp.arange(content.size).reshape(content.shape) / 7.0), 1e-6

        @jax.jit
        def brightness(content):
            return stylize(network, content, style, weights=WEIGHTS, config=config, steps=2).image[8:, ::3].mean()

        slope = jnp.vdot(jax.grad(brightness)(content), direction)
        difference = (brightness(content + step * direction) - brightness(content - step * direction)) / (2 * step)
        assert slope == pytest.approx(float(difference), rel=1e-3)


@pytest.mark.slow
def test_a_batch_of_contents_gives_the_picture_of_each(params, content, style):
    batch = jnp.stack([content, content[::-1]])
    together = stylize(params, batch, style, weights=WEIGHTS, config=LBFGS, steps=4)
    assert together.image.shape == batch.shape and together.trace["total"].shape == (2, 4)
    np.testing.assert_allclose(
        together.image[1], stylize(params, batch[1], style, weights=WEIGHTS, config=LBFGS, steps=4).image, atol=1e-3
    )


def test_the_same_key_gives_the_same_bits_and_another_key_another_picture(params, content, style):
    first, again, other = (
        np.asarray(
            stylize(
                params, content, style, init="noise", key=jax.random.key(seed), weights=WEIGHTS, config=LBFGS, steps=3
            ).image
        )
        for seed in (1, 1, 2)
    )
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_second_picture_of_the_same_shapes_compiles_nothing(params, content, style, compilations):
    others = (content[::-1], style[::-1])
    stylize(params, content, style, weights=WEIGHTS, config=LBFGS, steps=2)
    compilations.clear()
    stylize(params, *others, weights=WEIGHTS, config=LBFGS, steps=2)
    assert compilations == []


def test_each_start_has_the_shape_of_the_scale(content, style):
    scale = Scale(24, 30, 1)
    own = start_at(content, [style], content[::-1], Scale(32, 40, 1))
    assert (own == content[::-1]).all()
    assert (start_at(content, [style], "content", Scale(32, 40, 1)) == content).all()
    resized = start_at(content, [style, content], "style", scale)
    assert resized.shape == (24, 30, 3) and 0 <= resized.min() and resized.max() <= 1
    assert resized.mean() == pytest.approx(float(style.mean()), abs=0.02)
    noise = start_at(content, [style], "noise", scale, key=jax.random.key(0))
    assert noise.shape == (24, 30, 3) and noise.std() == pytest.approx(12**-0.5, rel=0.05)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("noise", r"has no seed: pass key="),
        ("random", r"'random' is unknown: use 'content', 'style', 'noise' or an image"),
        (jnp.zeros((2, 16, 16, 3)), r"is \[2, 16, 16, 3\], but the content is \[32, 40, 3\]"),
    ],
)
def test_a_start_that_cannot_be_is_refused(content, style, start, message):
    with pytest.raises(InputError, match=message):
        start_at(content, [style], start, Scale(32, 40, 1))


def test_weights_for_other_layers_than_the_configs_are_refused(params, content, style):
    with pytest.raises(InputError, match="differ in content/relu3_1, content/relu4_2"):
        stylize(params, content, style, config=Config(content_layers=("relu3_1",)), steps=1)


# Scales


@pytest.mark.slow
def test_scales_follow_each_other_and_their_traces_too(params, content, style):
    config = dataclasses.replace(LBFGS, scales=2)
    image, trace = stylize(params, content, style, weights=WEIGHTS, config=config, steps=12)
    assert image.shape == content.shape and trace["total"].shape == (12,)
    first, second = plan(*content.shape[:2], steps=12, config=config)
    state = init(start_at(content, [style], "content", first), config=config)
    state, coarse = run(
        state,
        params,
        targets_at(params, content, [style], first, config=config),
        WEIGHTS,
        config=config,
        steps=first.steps,
    )
    state = init(enlarge(state.image, content, [style], "content", second), config=config)
    targets = make_targets(params, content, style, config=config)
    state, fine = run(state, params, targets, WEIGHTS, config=config, steps=second.steps)
    np.testing.assert_allclose(trace["total"], jnp.concatenate([coarse["total"], fine["total"]]), rtol=1e-3)
    np.testing.assert_allclose(image, state.image, atol=1e-3)


@pytest.mark.slow
def test_above_a_size_terms_are_means_over_it_and_its_half(params, content, style):
    """As two separate comparisons of pictures that were halved beforehand."""
    config = dataclasses.replace(LBFGS, halve_above=39)
    whole, half = Scale(32, 40, 1), Scale(16, 20, 1)
    image = 1 - content
    halved = jax.image.resize(image, (16, 20, 3), "lanczos3")
    targets = targets_at(params, content, [style], whole, config=config)
    found = terms(params, image, targets, config=config)
    each = [
        terms(params, picture, targets_at(params, content, [style], scale, config=LBFGS), config=LBFGS)
        for picture, scale in ((image, whole), (halved, half))
    ]
    for name, value in found.items():
        expected = each[0][name] if name == "tv" else (each[0][name] + each[1][name]) / 2
        assert value == pytest.approx(float(expected), rel=1e-4), name
    below = dataclasses.replace(LBFGS, halve_above=40)
    assert targets_at(params, content, [style], whole, config=below).half is None
    assert targets.half is not None and targets.half.half is None


@pytest.mark.slow
def test_a_batch_compared_at_half_its_size_gives_the_picture_of_each(params, content, style):
    config = dataclasses.replace(LBFGS, halve_above=39)
    batch = jnp.stack([content, content[::-1]])
    together = stylize(params, batch, style, weights=WEIGHTS, config=config, steps=3).image
    alone = stylize(params, batch[1], style, weights=WEIGHTS, config=config, steps=3).image
    np.testing.assert_allclose(together[1], alone, atol=1e-3)


def test_what_a_run_starts_from_is_enlarged_as_itself_and_noise_as_noise(content, style):
    coarse, whole = Scale(16, 20, 1), Scale(32, 40, 1)
    draft = jax.random.uniform(jax.random.key(1), content.shape)
    for start in ("content", "style", draft):
        small = start_at(content, [style], start, coarse)
        expected = start_at(content, [style], start, whole)
        np.testing.assert_allclose(enlarge(small, content, [style], start, whole), expected, atol=1e-6)
    noise = start_at(content, [content], "noise", coarse, key=jax.random.key(0))
    np.testing.assert_array_equal(enlarge(noise, content, [style], "noise", whole), resize(noise, 32, 40))


# Several styles, and what is kept of them


def test_a_blend_of_nothing_but_one_style_is_that_style(params, content, style):
    other = style[::-1, ::-1] ** 2
    alone = stylize(params, content, style, weights=WEIGHTS, config=LBFGS, steps=3)
    blended = stylize(params, content, [style, other], blend=[2.0, 0.0], weights=WEIGHTS, config=LBFGS, steps=3)
    np.testing.assert_allclose(alone.image, blended.image, atol=1e-4)


def test_statistics_serve_in_the_place_of_their_pictures(params, content, style):
    kept = summarize_style(params, style, config=LBFGS)
    from_picture = stylize(params, content, style, weights=WEIGHTS, config=LBFGS, steps=3)
    for styles in (kept, [kept], {40: kept, 900: jax.tree.map(jnp.zeros_like, kept)}):
        from_kept = stylize(params, content, styles, weights=WEIGHTS, config=LBFGS, steps=3)
        np.testing.assert_allclose(from_picture.image, from_kept.image, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": [1.0]}, "There are 1 blend weights for 2 styles: pass one for each"),
        ({"style_masks": [None]}, "There are 1 style masks for 2 styles: pass one for each"),
        ({"style_masks": [None, jnp.ones((9, 9))]}, r"style mask is \[9, 9\], but its style is \[36, 32, 3\]"),
        (
            {"content_masks": jnp.ones((1, 32, 40))},
            r"content masks are \[1, 32, 40\] for 2 styles .*: pass one of its height and width",
        ),
        ({"content_masks": jnp.ones((2, 30, 40))}, r"content masks are \[2, 30, 40\] for 2 styles"),
        ({"content_masks": jnp.ones((2, 32, 40)), "blend": [1.0, 2.0]}, "regions and blend weights"),
    ],
)
def test_weights_and_masks_that_do_not_fit_the_styles_are_refused(params, content, style, options, message):
    with pytest.raises(InputError, match=message):
        stylize(params, content, [style, style], weights=WEIGHTS, config=LBFGS, steps=1, **options)


# Colours


@pytest.mark.slow
@pytest.mark.parametrize("scales", [1, 2])
def test_kept_colours_are_the_contents_wherever_they_can_be(params, content, style, scales):
    """Chroma is the content's in every pixel that is not clipped."""
    config = dataclasses.replace(LBFGS, color="keep", scales=scales)
    image = stylize(params, content, style, weights=WEIGHTS, config=config, steps=12).image
    chroma = [np.asarray(x - color.luminance(x)) for x in (image, content)]
    inside = np.asarray((image > 0) & (image < 1)).all(-1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(chroma[0][inside], chroma[1][inside], atol=1e-5)
    assert np.abs(np.asarray(image - content)).max() > 0.05


@pytest.mark.parametrize("how", ["match", "match-cholesky", "histogram"])
def test_a_recoloured_style_has_the_contents_colours_on_average(content, style, how):
    changed: Any = recolor(content, style, config=dataclasses.replace(LBFGS, color=how))[1][0]
    np.testing.assert_allclose(changed.mean((0, 1)), content.mean((0, 1)), atol=0.02)
    assert changed.shape == style.shape


def test_a_batch_of_contents_has_no_colours_to_change_to(content, style):
    with pytest.raises(InputError, match="Colours are changed by 'match' for one content at a time: use jax.vmap"):
        recolor(jnp.stack([content, content]), style, config=dataclasses.replace(LBFGS, color="match"))


def test_no_style_at_all_has_no_colours(content):
    with pytest.raises(InputError, match="There is no style: pass a picture, or a sequence of at least one"):
        recolor(content, [], config=LBFGS)


def test_statistics_have_no_colours_to_change(params, content, style):
    kept = summarize_style(params, style, config=LBFGS)
    with pytest.raises(InputError, match="Saved statistics have no colours to change by 'keep'"):
        stylize(params, content, kept, config=dataclasses.replace(LBFGS, color="keep"), weights=WEIGHTS, steps=1)


# Regions


@pytest.mark.slow
@pytest.mark.parametrize("scales", [1, 2])
@pytest.mark.parametrize("colour", ["none", "keep"])
def test_what_no_mask_covers_stays_as_it_is_bit_for_bit(params, content, style, scales, colour):
    mask = jnp.zeros((1, 32, 40)).at[:, 4:20, :18].set(1.0)
    config = dataclasses.replace(LBFGS, scales=scales, color=colour)
    image = stylize(params, content, style, weights=WEIGHTS, config=config, steps=6, content_masks=mask).image
    outside = np.asarray(mask[0] == 0)
    np.testing.assert_array_equal(np.asarray(image)[outside], np.asarray(content)[outside])
    assert np.abs(np.asarray(image - content))[~outside].mean() > 0.01


@pytest.mark.slow
def test_one_region_of_everything_is_no_region(params, content, style):
    plain = stylize(params, content, style, weights=WEIGHTS, config=LBFGS, steps=3)
    whole = stylize(params, content, style, weights=WEIGHTS, config=LBFGS, steps=3, content_masks=jnp.ones((1, 32, 40)))
    np.testing.assert_allclose(plain.image, whole.image, atol=1e-3)


@pytest.mark.slow
def test_each_region_comes_closer_to_its_own_style(params, content):
    """Exchanging a dark and a bright style darkens the one side and brightens the other."""
    dark, bright = jnp.full((24, 24, 3), 0.1), jnp.full((24, 24, 3), 0.9)
    left = jnp.zeros((32, 40)).at[:, :20].set(1.0)
    options: dict[str, Any] = {"config": LBFGS, "steps": 100, "content_masks": jnp.stack([left, 1 - left])}
    options["weights"] = WEIGHTS._replace(content={"relu2_2": 0.01}, tv=0.0)
    one, other = (stylize(params, content, styles, **options).image for styles in ([dark, bright], [bright, dark]))
    assert one[:, :18].mean() < other[:, :18].mean() - 0.1
    assert one[:, 22:].mean() > other[:, 22:].mean() + 0.1


@pytest.mark.slow
def test_a_soft_mask_is_optimised_as_it_is_composed(params, content, style):
    """The first total of a run is that of the picture that would be saved."""
    start, mask = 1 - content, jnp.full((1, 32, 40), 0.5)
    targets = make_targets(params, content, style, config=LBFGS, content_masks=mask)
    _, trace = run(init(start, config=LBFGS), params, targets, WEIGHTS, config=LBFGS, steps=1)
    features = image_features(params, (content + start) / 2, config=LBFGS)
    seen = losses.squared_distance(features["relu2_2"], targets.content["relu2_2"], axes=3)
    assert trace["content/relu2_2"][0] == pytest.approx(float(seen), rel=1e-4)


def test_a_style_mask_takes_part_of_a_style(params, content, style):
    half = jnp.concatenate([style, 1 - style], axis=1)  # the mask leaves what the right half holds out
    mask = jnp.zeros(half.shape[:2]).at[:, :32].set(1.0)
    shallow = dataclasses.replace(LBFGS, content_layers=("relu1_1",), style_layers=("relu1_1",))
    masked: Any = summarize_style(params, half, config=shallow, mask=mask)["relu1_1"]
    alone: Any = summarize_style(params, style, config=shallow)["relu1_1"]
    np.testing.assert_allclose(masked.mean, alone.mean, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["sliced", "wasserstein"])
def test_regions_go_with_every_statistic(params, content, style, statistic):
    config = dataclasses.replace(LBFGS, statistic=statistic)
    mask = jnp.zeros((1, 32, 40)).at[:, :, :20].set(1.0)
    result = stylize(
        params, content, style, key=jax.random.key(0), weights=WEIGHTS, config=config, steps=8, content_masks=mask
    )
    assert result.trace["total"][-1] < result.trace["total"][0]
    assert np.isfinite(result.image).all()


@pytest.mark.slow
def test_a_batch_with_a_region_gives_the_picture_of_each(params, content, style):
    batch, mask = jnp.stack([content, content[::-1]]), jnp.zeros((1, 32, 40)).at[:, :16].set(1.0)
    options = {"weights": WEIGHTS, "config": LBFGS, "steps": 3, "content_masks": mask}
    together = stylize(params, batch, style, **options).image
    np.testing.assert_allclose(together[1], stylize(params, batch[1], style, **options).image, atol=1e-3)


# The two halves by themselves


def test_a_reconstruction_has_the_features_and_not_the_start(params, content):
    key = jax.random.key(0)
    image, trace = reconstruct(params, content, key=key, content_layers=("conv1_1",), config=SHALLOW, steps=60)
    assert set(trace) == {"content/conv1_1", "tv", "total", "bounds"}
    assert trace["total"][-1] < 0.2 * trace["total"][0]
    assert jnp.mean(jnp.square(image - content)) < 0.5 * jnp.mean(jnp.square(content - content.mean()))


@pytest.mark.slow
def test_a_reconstruction_from_style_layers_has_their_statistics_and_not_the_places(params, content):
    layers = ("relu1_1", "relu2_1")
    options = {"config": SHALLOW, "content_layers": (), "style_layers": layers}
    image, _ = reconstruct(params, content, key=jax.random.key(0), steps=40, **options)
    noise = jax.random.uniform(jax.random.key(0), content.shape)
    expected, found, before = (
        image_features(params, each, config=SHALLOW)["relu2_1"] for each in (content, image, noise)
    )
    grams = [np.einsum("hwi,hwj->ij", each, each) / each[..., 0].size for each in (expected, found, before)]
    assert np.linalg.norm(grams[1] - grams[0]) < 0.2 * np.linalg.norm(grams[2] - grams[0])


@pytest.mark.slow
@pytest.mark.parametrize("tileable", [False, True])
def test_a_texture_is_larger_than_its_style_and_has_its_statistics(params, style, tileable):
    weights = WEIGHTS._replace(content={"relu5_1": 1.0})  # does not count
    options = {"weights": weights, "config": LBFGS, "steps": 30, "tileable": tileable}
    image, trace = texture(params, style, key=jax.random.key(0), height=48, width=64, **options)
    assert image.shape == (48, 64, 3) and not any(name.startswith("content") for name in trace)
    assert trace["total"][-1] < 0.3 * trace["total"][0]


@pytest.mark.slow
def test_a_tileable_texture_has_no_seam(params, style):
    """At two scales: the step across the border is hardly larger than steps elsewhere, where that of another is."""
    config = dataclasses.replace(LBFGS, scales=(32, 64))
    options = {"weights": WEIGHTS, "config": config, "steps": 40, "height": 64, "width": 64}

    def seam(tileable: bool) -> float:
        image = np.asarray(texture(params, style, key=jax.random.key(0), tileable=tileable, **options).image)
        steps = np.concatenate([np.abs(np.roll(image, -1, i) - image).mean((1 - i, 2)) for i in (0, 1)])
        return (steps[63] + steps[127]) / 2 / np.median(steps)

    assert seam(True) < 1.4 and seam(False) > 2
