"""The whole method as one function, and its parts: starts, scales, colours, regions, texture, reconstruction."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import image_features
from jaxstyle.losses.objective import terms
from jaxstyle.losses.targets import make_targets, summarize_style
from jaxstyle.optim.loop import init, run
from jaxstyle.transfer import color
from jaxstyle.transfer import stylize as stylize_module
from jaxstyle.transfer.color import _recolor, recolor
from jaxstyle.transfer.resize import resize
from jaxstyle.transfer.schedule import Scale, plan
from jaxstyle.transfer.stylize import enlarge, reconstruct, start_at, stylize, targets_at, texture

LAYERS: dict[str, Any] = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}
LBFGS = Config(**LAYERS)
ADAM = Config(optimizer="adam", **LAYERS)
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)
TOY = Config(network=toy.network, optimizer="adam", learning_rate=0.05, scales=1, **toy.LAYERS)
PARAMS: Any = jax.tree.map(np.float32, toy.PARAMS)


def pictures(height=16, width=20):
    rng = np.random.default_rng(0)
    return rng.uniform(0.2, 0.8, (2, height, width, 3)).astype(np.float32)


def closer(found, *, names, share):
    assert 0 <= found.image.min() and found.image.max() <= 1
    for name in names:
        assert found.trace[name][-1] < share * found.trace[name][0], name


def test_the_picture_comes_closer_to_the_style_and_another_one_compiles_nothing(params, content, style, compilations):
    options: dict[str, Any] = {"weights": WEIGHTS, "config": ADAM, "steps": 30}
    found = stylize(params, content, style, **options)
    assert found.image.shape == content.shape and found.image.dtype == jnp.float32
    closer(found, names=("style/relu1_1", "style/relu2_1"), share=0.9)
    closer(found, names=("total",), share=0.5)
    others = jnp.asarray(np.asarray(content)[::-1]), jnp.asarray(np.asarray(style)[::-1])
    compilations.clear()
    stylize(params, *others, **options)
    assert compilations == []


@pytest.mark.slow(optimized=True)
def test_jit_of_the_whole_equals_its_parts_and_repeats_bit_for_bit(params, content, style):
    """From noise: the same key gives the same bits, another key another picture."""
    config = dataclasses.replace(LBFGS, content_layers=("relu1_2",), style_layers=("relu1_1",))
    weights = LossWeights({"relu1_2": 1.0}, {"relu1_1": 6.0}, tv=0.1)
    options: dict[str, Any] = {"weights": weights, "config": config, "steps": 5, "init": "noise"}
    program = jax.jit(lambda *given, key: stylize(params, *given, key=key, **options).image)
    whole = program(content, style, key=jax.random.key(1))
    first, again, other = (
        np.asarray(stylize(params, content, style, key=jax.random.key(seed), **options).image) for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(whole, first, atol=1e-4)
    assert first.tobytes() == again.tobytes() != other.tobytes()


# Starts and scales


@pytest.fixture(scope="module")
def sized():
    """Starts at two scales, and their enlargements: one program."""
    content, style = pictures()
    coarse, whole = Scale(8, 10, 1), Scale(16, 20, 1)

    @jax.jit
    def program(content, style, draft):
        found = {}
        for name, start in (("content", "content"), ("style", "style"), ("draft", draft)):
            small, large = (start_at(content, [style, content], start, scale) for scale in (coarse, whole))
            found[name] = small, large, enlarge(small, content, [style], start, whole)
            found[f"{name} brighter"] = enlarge(small + 2, content, [style], start, whole)
        noise = start_at(content, [style], "noise", coarse, key=jax.random.key(0))
        resized = resize(noise, 16, 20)
        found["noise"] = noise, resized, enlarge(noise, content, [style], "noise", whole)
        return found

    return content, style, jax.tree.map(np.asarray, program(content, style[:12, :12], 1 - content))


@pytest.mark.parametrize("config", [Config(), Config(optimizer="adam", block_pixels=40_000)])
def test_a_run_has_the_precision_of_the_content_also_where_float64_is_enabled(params, config):
    def picture(height, width):
        return jax.ShapeDtypeStruct((height, width, 3), "float32")

    with jax.enable_x64(True):
        run = partial(stylize, steps=1, config=config, init="noise")
        found = jax.eval_shape(
            lambda content, style, key: run(params, content, style, key=key),
            picture(240, 180),
            picture(32, 32),
            jax.eval_shape(lambda: jax.random.key(0)),
        )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32"}


def test_a_start_has_the_size_of_the_scale(sized):
    content, style, found = sized
    np.testing.assert_array_equal(found["content"][1], content)
    np.testing.assert_array_equal(found["draft"][1], 1 - content)
    for name, mean in (("content", content), ("style", style[:12, :12]), ("draft", 1 - content)):
        small, large, _ = found[name]
        assert small.shape == (8, 10, 3) and large.shape == (16, 20, 3)
        assert small.min() >= 0 and small.max() <= 1 and small.mean() == pytest.approx(mean.mean(), abs=0.02)
    noise = found["noise"][0]
    assert noise.shape == (8, 10, 3) and noise.std() == pytest.approx(12**-0.5, rel=0.1)


def test_a_start_is_enlarged_as_itself_and_noise_as_noise(sized):
    _, _, found = sized
    for name in ("content", "style", "draft"):
        np.testing.assert_allclose(found[name][2], found[name][1], atol=1e-6)
        np.testing.assert_array_equal(found[f"{name} brighter"], 1)  # what is added is enlarged too, and clipped
    np.testing.assert_array_equal(found["noise"][2], found["noise"][1])


def refused(message, function, *arrays):
    """Check that a function refuses arrays when it is traced."""
    with pytest.raises(InputError, match=message):
        jax.eval_shape(function, *arrays)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("noise", "has no seed: pass key="),
        ("random", "'random' is unknown: use 'content', 'style', 'noise' or an image"),
        (np.zeros((2, 16, 16, 3), np.float32), r"is \[2, 16, 16, 3\], but the content is \[16, 20, 3\]"),
    ],
    ids=["noise", "name", "batch"],
)
def test_a_start_that_cannot_be_is_refused(start, message):
    content, style = pictures()
    with pytest.raises(InputError, match=message):
        start_at(content, [style], start, Scale(16, 20, 1))  # pyright: ignore[reportArgumentType]


def test_statistics_have_no_picture_to_start_from():
    with pytest.raises(InputError, match="which has no picture: start from content or noise"):
        start_at(pictures()[0], [{}], "style", Scale(16, 20, 1))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": dataclasses.replace(TOY, content_layers=("half",))}, "differ in content/full, content/half"),
        ({"blend": [1.0]}, "There are 1 blend weights for 2 styles: pass one per style"),
        ({"style_masks": [None]}, "There are 1 style masks for 2 styles: pass one per style"),
        ({"style_masks": [None, np.ones((9, 9))]}, r"style mask is \[9, 9\], but its style is \[16, 20, 3\]"),
        (
            {"content_masks": np.ones((1, 16, 20))},
            r"content masks are \[1, 16, 20\] for 2 styles .*: pass one mask of its height and width",
        ),
        ({"content_masks": np.ones((2, 15, 20))}, r"content masks are \[2, 15, 20\] for 2 styles"),
        ({"content_masks": np.ones((2, 16, 20)), "blend": [1.0, 2.0]}, "regions and blend weights"),
    ],
    ids=["layers", "blend", "style masks", "style mask", "content masks", "content mask", "both"],
)
def test_weights_and_masks_that_do_not_fit_are_refused(options, message):
    content, style = pictures()
    given = {"weights": toy.WEIGHTS, "config": TOY, "steps": 1} | options
    refused(message, lambda content, style: stylize(PARAMS, content, [style, style], **given), content, style)


@pytest.mark.slow
def test_scales_follow_each_other_and_so_do_their_traces(params, content, style):
    config = dataclasses.replace(ADAM, scales=2)
    image, trace = stylize(params, content, style, weights=WEIGHTS, config=config, steps=12)
    assert image.shape == content.shape and trace["total"].shape == (12,)
    first, second = plan(*content.shape[:2], steps=12, config=config)
    targets = targets_at(params, content, [style], first, config=config)
    state = init(start_at(content, [style], "content", first), config=config)
    state, coarse = run(state, params, targets, WEIGHTS, config=config, steps=first.steps)
    state = init(enlarge(state.image, content, [style], "content", second), config=config)
    targets = make_targets(params, content, style, config=config)
    state, fine = run(state, params, targets, WEIGHTS, config=config, steps=second.steps)
    np.testing.assert_allclose(trace["total"], np.concatenate([coarse["total"], fine["total"]]), rtol=1e-3)
    np.testing.assert_allclose(image, state.image, atol=1e-3)


@pytest.mark.slow
def test_above_a_size_terms_are_means_over_it_and_its_half(params, content, style):
    """As two separate comparisons of pictures that were halved beforehand."""
    config = dataclasses.replace(LBFGS, halve_above=39)
    whole, half = Scale(32, 40, 1), Scale(16, 20, 1)

    @jax.jit
    def program(image):
        halved = jax.image.resize(image, (16, 20, 3), "lanczos3")
        targets = targets_at(params, content, [style], whole, config=config)
        assert targets.half is not None and targets.half.half is None
        return terms(params, image, targets, config=config), [
            terms(params, picture, targets_at(params, content, [style], scale, config=LBFGS), config=LBFGS)
            for picture, scale in ((image, whole), (halved, half))
        ]

    found, each = program(1 - content)
    for name, value in found.items():
        expected = each[0][name] if name == "tv" else (each[0][name] + each[1][name]) / 2
        assert value == pytest.approx(float(expected), rel=1e-4), name


def test_a_picture_is_compared_at_half_its_size_only_above_the_limit_and_if_its_layers_allow_it(params):
    content, style = np.zeros((32, 40, 3), np.float32), np.zeros((36, 32, 3), np.float32)

    def half(height=32, **chosen):
        config = Config(style_layers=("relu1_1",), **{"content_layers": ("relu1_1",), **chosen})
        function = partial(targets_at, scale=Scale(height, 40, 1), config=config)
        return jax.eval_shape(lambda content, style: function(params, content, [style]), content, style).half

    assert half(halve_above=39) is not None and half(halve_above=39).half is None
    assert half(halve_above=19).half is not None
    assert half(halve_above=40) is None and half(halve_above=None) is None
    assert half(halve_above=39, content_layers=("relu5_1",)) is not None  # 16 pixels are enough for one of its pixels
    assert half(30, halve_above=39, content_layers=("relu5_1",)) is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["half", "masks"])
def test_a_batch_of_contents_gives_the_picture_of_each(how):
    content, style = pictures()
    batch, mask = jnp.stack([content, content[::-1]]), np.zeros((1, 16, 20), np.float32)
    mask[:, :, :10] = 1
    config = dataclasses.replace(TOY, halve_above=19) if how == "half" else TOY
    options: dict[str, Any] = {"weights": toy.WEIGHTS, "config": config, "steps": 3}
    options["content_masks"] = jnp.asarray(mask) if how == "masks" else None
    together = stylize(PARAMS, batch, style, **options)
    assert together.image.shape == batch.shape and together.trace["total"].shape == (2, 3)
    np.testing.assert_allclose(together.image[1], stylize(PARAMS, batch[1], style, **options).image, atol=1e-5)


# Several styles, and their statistics


@pytest.mark.slow
def test_statistics_and_a_blend_of_one_style_serve_as_its_picture():
    content, style = pictures(32, 40)
    options: dict[str, Any] = {"weights": toy.WEIGHTS, "config": TOY, "steps": 3}
    other = style[::-1, ::-1] ** 2
    from_picture = stylize(PARAMS, content, style, **options)
    saved = jax.jit(partial(summarize_style, config=TOY))(PARAMS, style)
    none = jax.tree.map(jnp.zeros_like, saved)
    for styles in (saved, [saved], {40: saved, 900: none}, {9: none, 30: saved, 60: none}):
        np.testing.assert_allclose(from_picture.image, stylize(PARAMS, content, styles, **options).image, atol=1e-4)
    blended = stylize(PARAMS, content, [style, other], blend=[2.0, 0.0], **options)
    np.testing.assert_allclose(from_picture.image, blended.image, atol=1e-4)


# Colours


def test_recolor_changes_each_style_by_the_method_of_the_config(monkeypatch):
    """Whose functions have tests of their own."""
    content, styles = pictures()[0], list(pictures())
    change: Any = _recolor
    monkeypatch.setattr(color, "luminance", lambda image: ("luminance", image))
    for name in ("match_luminance", "match", "match_histogram"):
        monkeypatch.setattr(color, name, lambda style, content, name=name, **form: (name, style, content, form))
    for how, expected, form in (
        ("keep", "match_luminance", {}),
        ("match", "match", {}),
        ("match-cholesky", "match", {"form": "cholesky"}),
        ("histogram", "match_histogram", {}),
    ):
        ground, found = change.__wrapped__(content, styles, change=how)
        assert (ground[0] == "luminance" and ground[1] is content) if how == "keep" else ground is content
        for (name, style, of, given), own in zip(found, styles, strict=True):
            assert (name, given) == (expected, form) and style is own and of is content
    ground, found = recolor(content, styles[0], config=LBFGS)
    assert ground is content and len(found) == 1 and found[0] is styles[0]


@pytest.mark.parametrize(
    ("how", "shape", "styles", "message"),
    [
        ("match", (2, 16, 20, 3), None, r"Color 'match' needs a single content \[H, W, 3\]: use jax.vmap"),
        ("none", (16, 20, 3), [], "There is no style: pass a picture, or a sequence of at least one"),
        ("keep", (16, 20, 3), [{}], "Saved statistics cannot be recolored with color 'keep'"),
    ],
)
def test_styles_without_colours_to_change_are_refused(how, shape, styles, message):
    given = [pictures()[1]] if styles is None else styles
    config = dataclasses.replace(LBFGS, color=how)
    refused(message, partial(recolor, config=config), np.zeros(shape, np.float32), given)


@pytest.mark.slow
def test_kept_colours_are_those_of_the_content_wherever_they_can_be():
    """Chroma is the content's in every pixel that is not clipped, over two scales."""
    content, style = pictures(32, 40)
    config = dataclasses.replace(TOY, color="keep", scales=2)
    image = stylize(PARAMS, content, style, weights=toy.WEIGHTS, config=config, steps=12).image
    chroma = [np.asarray(x - color.luminance(x)) for x in (image, content)]
    inside = np.asarray((image > 0) & (image < 1)).all(-1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(chroma[0][inside], chroma[1][inside], atol=1e-5)
    assert np.abs(np.asarray(image - content)).max() > 0.05


# Regions


@pytest.mark.slow(optimized=True)
def test_pixels_outside_all_masks_stay_as_they_are_bit_for_bit():
    """Over two scales, and where colours are kept."""
    content, style = pictures(32, 40)
    mask = np.zeros((1, 32, 40), np.float32)
    mask[:, 4:20, :18] = 1
    config = dataclasses.replace(TOY, scales=2, color="keep")
    options: dict[str, Any] = {"weights": toy.WEIGHTS, "config": config, "steps": 6}
    image = np.asarray(stylize(PARAMS, content, style, content_masks=jnp.asarray(mask), **options).image)
    outside = mask[0] == 0
    np.testing.assert_array_equal(image[outside], content[outside])
    assert np.abs(image - content)[~outside].mean() > 0.01


@pytest.mark.slow
def test_one_region_of_everything_is_no_region():
    content, style = pictures()
    options: dict[str, Any] = {"weights": toy.WEIGHTS, "config": TOY, "steps": 3}
    plain = stylize(PARAMS, content, style, **options)
    whole = stylize(PARAMS, content, style, content_masks=jnp.ones((1, 16, 20)), **options)
    np.testing.assert_allclose(plain.image, whole.image, atol=1e-4)


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_each_region_comes_closer_to_its_own_style(params, content):
    """Exchanging a dark and a bright style darkens the one side and brightens the other."""
    dark, bright = (jnp.full((24, 24, 3), value) for value in (0.1, 0.9))
    left = np.zeros((32, 40), np.float32)
    left[:, :20] = 1
    options: dict[str, Any] = {"config": LBFGS, "steps": 100, "content_masks": jnp.stack([left, 1 - left])}
    options["weights"] = dataclasses.replace(WEIGHTS, content={"relu2_2": 0.01}, tv=0.0)
    one, other = (stylize(params, content, styles, **options).image for styles in ([dark, bright], [bright, dark]))
    assert one[:, :18].mean() < other[:, :18].mean() - 0.1
    assert one[:, 22:].mean() > other[:, 22:].mean() + 0.1


@pytest.mark.slow
def test_a_soft_mask_is_optimized_as_it_is_composed(params, content, style):
    """The first total of a run is that of the picture that would be saved."""

    @jax.jit
    def program(start):
        targets = make_targets(params, content, style, config=ADAM, content_masks=jnp.full((1, 32, 40), 0.5))
        seen = image_features(params, (content + start) / 2, config=ADAM)["relu2_2"]
        trace = run(init(start, config=ADAM), params, targets, WEIGHTS, config=ADAM, steps=1)[1]
        return trace["content/relu2_2"][0], seen, targets.content["relu2_2"]

    found, seen, target = map(np.float64, program(1 - content))
    assert found == pytest.approx(np.sum((seen - target) ** 2) / np.sum(target**2), rel=1e-4)


def test_a_style_mask_selects_part_of_a_style():
    """The right half is outside the mask; a layer of single pixels does not see across the border."""
    style, other = pictures()
    both, mask = np.concatenate([style, other], axis=1), np.zeros((16, 40), np.float32)
    mask[:, :20] = 1
    config = dataclasses.replace(TOY, style_layers=("full",))
    masked, alone = jax.jit(
        lambda both, style, mask: (
            summarize_style(PARAMS, both, config=config, mask=mask)["full"],
            summarize_style(PARAMS, style, config=config)["full"],
        )
    )(both, style, mask)
    np.testing.assert_allclose(masked.mean, alone.mean, rtol=1e-4)
    np.testing.assert_allclose(masked.second, alone.second, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["sliced", "wasserstein"])
def test_regions_work_with_other_statistics(statistic):
    content, style = pictures()
    config = dataclasses.replace(TOY, statistic=statistic)
    mask = np.zeros((1, 16, 20), np.float32)
    mask[:, :, :10] = 1
    options: dict[str, Any] = {"weights": toy.WEIGHTS, "config": config, "steps": 8, "content_masks": jnp.asarray(mask)}
    result = stylize(PARAMS, content, style, key=jax.random.key(0), **options)
    assert result.trace["total"][-1] < result.trace["total"][0]
    assert np.isfinite(result.image).all()


# Reconstruction and texture


@pytest.fixture
def called(monkeypatch):
    """Replace `stylize` by a function that only records its arguments."""
    calls = []
    monkeypatch.setattr(stylize_module, "stylize", lambda *arrays, **options: calls.append((arrays, options)))
    return calls


def test_a_reconstruction_starts_from_noise_and_weighs_its_layers_alike(called):
    image, key = pictures()[0], jax.random.key(0)
    own = dataclasses.replace(TOY, own_terms={"none": lambda *_: 0.0}, own_layers=("half",))
    layers: dict[str, Any] = {"content_layers": ("full",), "style_layers": ("full", "half")}
    reconstruct(PARAMS, image, key=key, config=own, tv=0.3, steps=9, **layers)
    reconstruct(PARAMS, image, key=key, content_layers=("relu5_1",))
    (arrays, options), (_, default) = called
    assert arrays[0] is PARAMS and arrays[1] is image and arrays[2] is image
    third = 1 / 3
    assert options["weights"] == LossWeights({"full": third}, {"full": third, "half": third}, tv=0.3)
    assert options["config"] == dataclasses.replace(TOY, **layers)
    assert (options["key"] is key, options["steps"], options["init"]) == (True, 9, "noise")
    assert default["weights"] == LossWeights({"relu5_1": 1.0}, {}, tv=0.0) and default["config"].style_layers == ()


def test_a_texture_starts_from_noise_of_its_size_and_has_no_content(called):
    style, key = pictures()[1], jax.random.key(0)
    for tileable in (False, True):
        options: dict[str, Any] = {"weights": toy.WEIGHTS, "config": TOY, "steps": 9, "blend": [1.0]}
        texture(PARAMS, [style], key=key, height=24, width=32, tileable=tileable, **options)
        arrays, found = called[-1]
        assert arrays[0] is PARAMS and arrays[1].shape == (24, 32, 3) and arrays[2][0] is style
        assert found["config"] == dataclasses.replace(
            TOY, content_layers=(), border="circular" if tileable else TOY.border
        )
        assert found["weights"] == dataclasses.replace(toy.WEIGHTS, content={})
        assert (found["key"] is key, found["init"], found["steps"], found["blend"]) == (True, "noise", 9, [1.0])


@pytest.mark.slow
def test_a_reconstruction_has_the_features_of_the_image_and_not_the_start(params, content):
    found = reconstruct(params, content, key=jax.random.key(0), content_layers=("conv1_1",), steps=60)
    assert set(found.trace) == {"content/conv1_1", "tv", "total", "bounds"}
    closer(found, names=("total",), share=0.2)
    image, content = np.asarray(found.image), np.asarray(content)
    assert np.square(image - content).mean() < 0.5 * np.square(content - content.mean()).mean()


@pytest.mark.slow
def test_a_reconstruction_from_style_layers_has_their_statistics(params, content):
    layers = ("relu1_1", "relu2_1")
    image, _ = reconstruct(params, content, key=jax.random.key(0), steps=40, content_layers=(), style_layers=layers)
    noise = jax.random.uniform(jax.random.key(0), content.shape)
    seen = jax.jit(lambda image: image_features(params, image, config=Config(style_layers=layers))["relu2_1"])
    grams = [toy.gram(np.asarray(seen(each))) for each in (content, image, noise)]
    assert np.linalg.norm(grams[1] - grams[0]) < 0.2 * np.linalg.norm(grams[2] - grams[0])


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_a_texture_has_the_statistics_of_its_style_and_no_seam_if_it_is_tileable(params, style):
    """At two scales: the step across the border is hardly larger than steps elsewhere only if it is tileable."""
    config = dataclasses.replace(LBFGS, scales=(32, 64))
    weights = dataclasses.replace(WEIGHTS, content={"relu5_1": 1.0})  # does not count
    options: dict[str, Any] = {"weights": weights, "config": config, "steps": 40, "height": 64, "width": 64}

    def seam(tileable: bool) -> float:
        found = texture(params, style, key=jax.random.key(0), tileable=tileable, **options)
        image = np.asarray(found.image)
        assert image.shape == (64, 64, 3) and not any(name.startswith("content") for name in found.trace)
        assert found.trace["total"][-1] < 0.3 * found.trace["total"][0]
        steps = np.concatenate([np.abs(np.roll(image, -1, i) - image).mean((1 - i, 2)) for i in (0, 1)])
        return (steps[63] + steps[127]) / 2 / np.median(steps)

    assert seam(True) < 1.4 and seam(False) > 2
