"""Style transfer as one function, and its parts: initial images, scales, colors, regions, texture, reconstruction."""

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy
from jax.experimental import checkify

from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.losses.layer_summaries import image_features
from jaxstyle.losses.loss_terms import terms
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets, summarize_style
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import image_on_host, init_state, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.runtime.fitting import fit
from jaxstyle.runtime.problem import make_problem
from jaxstyle.transfer import color
from jaxstyle.transfer import stylize as stylize_module
from jaxstyle.transfer.color import _recolor, recolor
from jaxstyle.transfer.resize import resize
from jaxstyle.transfer.scale import Transfer
from jaxstyle.transfer.schedule import Scale, plan
from jaxstyle.transfer.stylize import reconstruct, stylize, texture
from jaxstyle.transfer.sweep import sweep

OBJECTIVE = Objective(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)
TOY: dict[str, Any] = {
    "objective": toy.OBJECTIVE,
    "network": toy.network,
    "optimizer": Adam(learning_rate=0.05),
    "scales": 1,
}
PARAMS: Any = jax.tree.map(np.float32, toy.PARAMS)


def pictures(height=16, width=20):
    rng = np.random.default_rng(0)
    return rng.uniform(0.2, 0.8, (2, height, width, 3)).astype(np.float32)


def transfer(content, styles, start: Any = "content", *, params: Any = None, objective=OBJECTIVE, key=None) -> Transfer:
    return Transfer(params, content, content, styles, objective, VGG19(), LBFGS(), start, key, steps=12)


def closer(actual, *, names, share):
    assert 0 <= actual.image.min() and actual.image.max() <= 1
    for name in names:
        assert actual.history[name][-1] < share * actual.history[name][0], name


def test_the_picture_comes_closer_to_the_style_and_another_one_compiles_nothing(params, content, style, compilations):
    options: dict[str, Any] = {"objective": OBJECTIVE, "optimizer": Adam(), "steps": 30}
    actual = stylize(params, content, style, **options)
    assert actual.image.shape == content.shape and actual.image.dtype == jnp.float32
    closer(actual, names=("style/relu1_1", "style/relu2_1"), share=0.9)
    closer(actual, names=("total",), share=0.5)
    others = jnp.asarray(np.asarray(content)[::-1]), jnp.asarray(np.asarray(style)[::-1])
    compilations.clear()
    stylize(params, *others, **options)
    assert compilations == []


@pytest.mark.slow(optimized=True)
def test_jit_of_the_whole_equals_its_parts_and_repeats_bit_for_bit(params, content, style):
    """From noise: the same key gives the same bits, another key another picture."""
    objective = Objective(content={"relu1_2": 1.0}, style={"relu1_1": 6.0}, tv=0.1)
    options: dict[str, Any] = {"objective": objective, "steps": 5, "init": "noise"}
    program = jax.jit(lambda *inputs, key: stylize(params, *inputs, key=key, **options).image)
    whole = program(content, style, key=jax.random.key(1))
    first, again, other = (
        np.asarray(stylize(params, content, style, key=jax.random.key(seed), **options).image) for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(whole, first, atol=1e-4)
    assert first.tobytes() == again.tobytes() != other.tobytes()


# Initial images and scales


@pytest.fixture(scope="module")
def sized():
    """Initial images at two scales, and their enlargements: one program."""
    content, style = pictures()
    coarse, whole = Scale(8, 10, 1), Scale(16, 20, 1)

    @jax.jit
    def program(content, style, draft):
        result = {}
        for name, start in (("content", "content"), ("recolored", "recolored"), ("style", "style"), ("draft", draft)):
            of = transfer(content, [style, content], start)
            small, large = (of.initial_image(scale, None) for scale in (coarse, whole))
            result[name] = small, large, of.initial_image(whole, small)
            result[f"{name} brighter"] = of.initial_image(whole, small + 2)
        of = transfer(content, [style], "noise", key=jax.random.key(0))
        noise = of.initial_image(coarse, None)
        result["noise"] = noise, resize(noise, 16, 20), of.initial_image(whole, noise)
        return result

    return content, style, jax.tree.map(np.asarray, program(content, style[:12, :12], 1 - content))


@pytest.mark.parametrize(
    ("optimizer", "network"), [(LBFGS(), VGG19()), (Adam(), VGG19(tile_pixels=40_000))], ids=["lbfgs", "adam in tiles"]
)
def test_a_run_has_the_precision_of_the_content_also_where_float64_is_enabled(params, optimizer, network):
    def picture(height, width):
        return jax.ShapeDtypeStruct((height, width, 3), "float32")

    with jax.enable_x64(True):
        run = partial(stylize, steps=1, optimizer=optimizer, network=network, init="noise")
        actual = jax.eval_shape(
            lambda content, style, key: run(params, content, style, key=key),
            picture(240, 180),
            picture(32, 32),
            jax.eval_shape(lambda: jax.random.key(0)),
        )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(actual)} == {"float32"}


def test_an_initial_image_has_the_size_of_the_scale(sized):
    content, style, actual = sized
    np.testing.assert_array_equal(actual["content"][1], content)
    np.testing.assert_array_equal(actual["draft"][1], 1 - content)
    own = {"content": content, "style": style[:12, :12], "draft": 1 - content}
    own["recolored"] = np.concatenate([style[:12, :12].reshape(-1, 3), content.reshape(-1, 3)])
    for name, mean in own.items():
        small, large, _ = actual[name]
        assert small.shape == (8, 10, 3) and large.shape == (16, 20, 3)
        assert small.min() >= 0 and small.max() <= 1 and small.mean() == pytest.approx(mean.mean(), abs=0.02)
    noise = actual["noise"][0]
    assert noise.shape == (8, 10, 3) and noise.std() == pytest.approx(12**-0.5, rel=0.1)


def test_an_initial_image_is_enlarged_as_itself_and_noise_as_noise(sized):
    _, _, actual = sized
    for name in ("content", "recolored", "style", "draft"):
        np.testing.assert_allclose(actual[name][2], actual[name][1], atol=1e-6)
        np.testing.assert_array_equal(actual[f"{name} brighter"], 1)  # what is added is enlarged too, and clipped
    np.testing.assert_array_equal(actual["noise"][2], actual["noise"][1])


def test_the_recolored_content_has_the_colors_of_the_styles_as_these_are_weighted_and_masked():
    content, noise = pictures()
    style, other = (0.2 + noise * [0.5, 0.7, 0.3]).astype(np.float32), 0.3 + 0.4 * noise[::-1]
    left = np.zeros((16, 20), np.float32)
    left[:, :8] = 1
    cases: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "style": ([style], {}),
        "other": ([other], {}),
        "both": ([style, other], {}),
        "weighted": ([style, other], {"style_weights": np.asarray([2.0, 0.0])}),
        "part": ([style[:, :8]], {}),
        "masked": ([style], {"style_masks": left[None]}),
        "regions": ([style, other], {"content_masks": np.stack([left, 1 - left])}),
        "overlapping": ([style, style], {"content_masks": np.ones((2, 16, 20), np.float32)}),
    }

    @jax.jit
    def program(content, cases):
        def of(styles, options):
            return dataclasses.replace(transfer(content, styles, "recolored"), **options).initial_image(
                Scale(16, 20, 1), None
            )

        return {name: of(*case) for name, case in cases.items()}

    actual = jax.tree.map(np.asarray, program(content, cases))
    for name, colors in (("style", style), ("both", np.concatenate([style, other]))):
        rows, wanted = actual[name].reshape(-1, 3), colors.reshape(-1, 3)
        np.testing.assert_allclose(rows.mean(0), wanted.mean(0), atol=1e-5)
        np.testing.assert_allclose(np.cov(rows.T), np.cov(wanted.T), rtol=0.01, atol=1e-4)
    for name, same in (("weighted", "style"), ("masked", "part"), ("overlapping", "style")):
        np.testing.assert_allclose(actual[name], actual[same], atol=1e-5)
    np.testing.assert_allclose(actual["regions"][:, :8], actual["style"][:, :8], atol=1e-6)
    np.testing.assert_allclose(actual["regions"][:, 8:], actual["other"][:, 8:], atol=1e-6)


def test_masks_that_do_not_match_the_styles_are_refused_before_the_initial_image():
    content, style = pictures()
    of = transfer(content, [style], "recolored")
    for options, message in (
        ({"style_masks": np.ones((2, 16, 20), np.float32)}, "2 style masks for 1 styles"),
        ({"content_masks": np.ones((1, 8, 8), np.float32)}, r"content masks are \[1, 8, 8\]"),
        ({"style_weights": [0.5, 0.5]}, "2 style weights for 1 styles"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(of, **options).checked()


def refused(message, function, *arrays):
    """Check that a function refuses arrays when it is traced."""
    with pytest.raises(InputError, match=message):
        jax.eval_shape(function, *arrays)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("noise", "has no seed: pass key="),
        ("random", "'random' is unknown: use 'content', 'recolored', 'style', 'noise' or an image"),
        (np.zeros((2, 16, 16, 3), np.float32), r"is \[2, 16, 16, 3\], but the content is \[16, 20, 3\]"),
    ],
    ids=["noise", "name", "batch"],
)
def test_an_impossible_initial_image_is_refused(start, message):
    content, style = pictures()
    with pytest.raises(InputError, match=message):
        transfer(content, [style], start).initial_image(Scale(16, 20, 1), None)


def test_statistics_have_no_picture_to_start_from():
    with pytest.raises(InputError, match="which has no picture: start from content or noise"):
        transfer(pictures()[0], [{}], "style").initial_image(Scale(16, 20, 1), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_weights": [1.0]}, "There are 1 style weights for 2 styles: pass one per style"),
        ({"style_masks": [None]}, "There are 1 style masks for 2 styles: pass one per style"),
        ({"style_masks": [None, np.ones((9, 9))]}, r"style mask is \[9, 9\], but its style is \[16, 20, 3\]"),
        (
            {"content_masks": np.ones((1, 16, 20))},
            r"content masks are \[1, 16, 20\] for 2 styles .*: pass one mask of its height and width",
        ),
        ({"content_masks": np.ones((2, 15, 20))}, r"content masks are \[2, 15, 20\] for 2 styles"),
        ({"content_masks": np.ones((2, 16, 20)), "style_weights": [1.0, 2.0]}, "both regions and weights"),
    ],
    ids=["style weights", "style masks", "style mask", "content masks", "content mask", "both"],
)
def test_weights_and_masks_that_do_not_fit_are_refused(options, message):
    content, style = pictures()
    inputs: dict[str, Any] = TOY | {"steps": 1} | options
    refused(message, lambda content, style: stylize(PARAMS, content, [style, style], **inputs), content, style)


@pytest.mark.slow
def test_scales_follow_each_other_and_so_do_their_histories(params, content, style):
    options: dict[str, Any] = {"objective": OBJECTIVE, "optimizer": Adam()}
    image, history = stylize(params, content, style, scales=2, steps=12, **options)
    assert image.shape == content.shape and history["total"].shape == (12,)
    first, second = plan(*content.shape[:2], steps=12, scales=2, layers=OBJECTIVE.layers)
    of = transfer(content, [style], params=params)
    targets = of.targets_of_size(*first[:2])
    state = init_state(of.initial_image(first, None), **options)
    state, coarse = run_steps(state, params, targets, OBJECTIVE, steps=first.steps)
    state = init_state(of.initial_image(second, state.image), **options)
    targets = make_targets(params, content, style, objective=OBJECTIVE)
    state, fine = run_steps(state, params, targets, OBJECTIVE, steps=second.steps)
    np.testing.assert_allclose(history["total"], np.concatenate([coarse["total"], fine["total"]]), rtol=1e-3)
    np.testing.assert_allclose(image, state.image, atol=1e-3)


@pytest.mark.slow
def test_above_a_size_terms_are_means_over_it_and_its_half(params, content, style):
    """As two separate comparisons of pictures that were halved beforehand."""
    objective = dataclasses.replace(OBJECTIVE, half_resolution_above=39)
    whole, half = Scale(32, 40, 1), Scale(16, 20, 1)

    def compared(picture, scale, objective):
        targets = transfer(content, [style], params=params, objective=objective).targets_of_size(*scale[:2])
        return terms(params, picture, targets, objective=objective), targets.half

    @jax.jit
    def program(image):
        halved = jax.image.resize(image, (16, 20, 3), "lanczos3")
        result, coarse = compared(image, whole, objective)
        assert coarse is not None and coarse.half is None
        return result, [compared(*each, OBJECTIVE)[0] for each in ((image, whole), (halved, half))]

    actual, each = program(1 - content)
    for name, value in actual.items():
        expected = each[0][name] if name == "tv" else (each[0][name] + each[1][name]) / 2
        assert value == pytest.approx(float(expected), rel=1e-4), name


def test_a_picture_is_compared_at_half_its_size_only_above_the_limit_and_if_its_layers_allow_it(params):
    content, style = np.zeros((32, 40, 3), np.float32), np.zeros((36, 32, 3), np.float32)

    def half(above, *, height=32, layer="relu1_1"):
        objective = Objective(content={layer: 1.0}, style={"relu1_1": 1.0}, half_resolution_above=above)

        def targets(content, style):
            return transfer(content, [style], params=params, objective=objective).targets_of_size(height, 40)

        return jax.eval_shape(targets, content, style).half

    assert half(39) is not None and half(39).half is None
    assert half(19).half is not None
    assert half(40) is None and half(None) is None
    assert half(39, layer="relu5_1") is not None  # 16 pixels are enough for one of its pixels
    assert half(39, height=30, layer="relu5_1") is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["half", "masks"])
def test_a_batch_of_contents_gives_the_picture_of_each(how):
    content, style = pictures()
    batch, mask = jnp.stack([content, content[::-1]]), np.zeros((1, 16, 20), np.float32)
    mask[:, :, :10] = 1
    options: dict[str, Any] = TOY | {"steps": 3}
    if how == "half":
        options["objective"] = dataclasses.replace(toy.OBJECTIVE, half_resolution_above=19)
    options["content_masks"] = jnp.asarray(mask) if how == "masks" else None
    together = stylize(PARAMS, batch, style, **options)
    assert together.image.shape == batch.shape and together.history["total"].shape == (2, 3)
    np.testing.assert_allclose(together.image[1], stylize(PARAMS, batch[1], style, **options).image, atol=1e-5)


# Arguments out of range


GRAY: Any = np.full((16, 20, 3), 0.5, np.float32)
SEED: Any = np.zeros(2, np.uint32)
BATCH: dict[str, Any] = TOY | {"objective": dataclasses.replace(toy.OBJECTIVE, tv=np.ones(2)), "steps": 1}
TARGETS_OPTIONS: dict[str, Any] = {"objective": toy.OBJECTIVE, "network": toy.network}
CUSTOM: Any = SimpleNamespace(layers=(), make_targets=lambda *_, **__: ())


def twice(image: Any) -> Any:
    return np.stack([image, image])


CALLS: dict[str, Any] = {
    "content of stylize": lambda image: stylize(PARAMS, image, GRAY, steps=1, **TOY),
    "batch of stylize": lambda image: stylize(PARAMS, twice(image), GRAY, steps=1, **TOY),
    "style of stylize": lambda image: stylize(PARAMS, GRAY, [GRAY, image], steps=1, **TOY),
    "initial image of stylize": lambda image: stylize(PARAMS, GRAY, GRAY, init=image, steps=1, **TOY),
    "content mask of stylize": lambda image: stylize(
        PARAMS, GRAY, GRAY, content_masks=image[None, ..., 1], steps=1, **TOY
    ),
    "style mask of stylize": lambda image: stylize(PARAMS, GRAY, GRAY, style_masks=[image[..., 1]], steps=1, **TOY),
    "content of sweep": lambda image: sweep(PARAMS, image, GRAY, **BATCH),
    "style of sweep": lambda image: sweep(PARAMS, GRAY, image, **BATCH),
    "initial image of sweep": lambda image: sweep(PARAMS, GRAY, GRAY, init=image, **BATCH),
    "style of texture": lambda image: texture(PARAMS, image, key=SEED, height=16, width=16, steps=1, **TOY),
    "image of reconstruct": lambda image: reconstruct(
        PARAMS, image, key=SEED, content_layers=("full",), steps=1, **TOY
    ),
    "content of make_targets": lambda image: make_targets(PARAMS, image, GRAY, **TARGETS_OPTIONS),
    "style of make_targets": lambda image: make_targets(PARAMS, GRAY, [image], **TARGETS_OPTIONS),
    "style of a custom objective": lambda image: make_targets(PARAMS, GRAY, image, objective=CUSTOM),
    "style mask of a custom objective": lambda image: make_targets(
        PARAMS, GRAY, GRAY, style_masks=[image[..., 1]], objective=CUSTOM
    ),
    "content mask of make_targets": lambda image: make_targets(
        PARAMS, GRAY, GRAY, content_masks=image[None, ..., 1], **TARGETS_OPTIONS
    ),
    "style mask of make_targets": lambda image: make_targets(
        PARAMS, GRAY, GRAY, style_masks=[image[..., 1]], **TARGETS_OPTIONS
    ),
    "initial image of init_state": lambda image: init_state(image, objective=toy.OBJECTIVE),
    "batch of init_state": lambda image: init_state(twice(image), objective=toy.OBJECTIVE),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_values_out_of_range_are_refused_with_the_range_and_the_cure(call):
    """One value of one pixel is enough; an array of integers is refused whatever its values are."""
    for value in (np.uint8(255), np.uint8(0), *map(np.float32, (255, 1.01, -0.01, np.nan, np.inf))):
        image = (GRAY if value.dtype == np.float32 else np.zeros_like(GRAY)).astype(value.dtype)
        image[3, 4, 1] = value
        with pytest.raises(InputError, match=r"\[0, 1\]") as refusal:
            call(image)
        if not value < 0:
            assert "255" in str(refusal.value) or not np.isfinite(value), value


def test_values_out_of_range_by_rounding_are_accepted():
    image = GRAY.copy()
    image[:2] = [[[1.0005]], [[-0.0005]]]
    state = init_state(image, objective=toy.OBJECTIVE)
    np.testing.assert_allclose(image_on_host(state), np.clip(image, 0, 1), atol=1e-6)


def test_what_is_no_picture_is_refused():
    for call in (call for name, call in CALLS.items() if "mask" not in name and "batch" not in name):
        for value in ("picture.png", None, np.full((16, 20, 3), "a"), GRAY.astype(object), GRAY[:0], GRAY[..., 0]):
            with pytest.raises(InputError):
                call(value)


def test_a_mask_that_is_no_array_is_refused():
    for masks in ({"content_masks": "mask.png"}, {"style_masks": ["mask.png"]}):
        with pytest.raises(InputError, match=r"mask is 'mask\.png': pass an array"):
            stylize(PARAMS, GRAY, GRAY, steps=1, **masks, **TOY)


def test_numbers_of_the_wrong_type_or_out_of_range_are_refused_with_their_names():
    calls: dict[str, Any] = {
        "height": lambda value: texture(PARAMS, GRAY, key=SEED, height=value, width=16, steps=1, **TOY),
        "width": lambda value: texture(PARAMS, GRAY, key=SEED, height=16, width=value, steps=1, **TOY),
        "batch_size": lambda value: sweep(PARAMS, GRAY, GRAY, batch_size=value, **BATCH),
        "checkpoint_segments": lambda value: stylize(PARAMS, GRAY, GRAY, checkpoint_segments=value, steps=1, **TOY),
        "save_every": lambda value: make_problem(PARAMS, GRAY, GRAY, save_every=value, steps=1, **TOY),
        "devices": lambda value: make_problem(PARAMS, GRAY, GRAY, devices=value, steps=1, **TOY),
        "every": lambda value: fit(make_problem(PARAMS, GRAY, GRAY, steps=1, **TOY), every=value),
        "until": lambda value: fit(make_problem(PARAMS, GRAY, GRAY, steps=1, **TOY), until=value),
        "size": lambda value: load_image(Path(__file__).parents[1] / "examples" / "cat.jpg", size=value),
        "key": lambda value: stylize(PARAMS, GRAY, GRAY, init="noise", key=value, steps=1, **TOY),
        "style_weights": lambda value: stylize(PARAMS, GRAY, GRAY, style_weights=[value], steps=1, **TOY),
        "style_weights ": lambda value: sweep(PARAMS, GRAY, GRAY, style_weights=[value], **BATCH),
        "history_size": lambda value: LBFGS(history_size=value),
        "patience": lambda value: LBFGS(patience=value),
        "tolerance": lambda value: Adam(tolerance=value),
        "learning_rate": lambda value: init_state(GRAY, objective=toy.OBJECTIVE, optimizer=Adam(learning_rate=value)),
    }
    for name, call in calls.items():
        for value in (
            "3",
            True,
            -1,
            float("nan"),
            *([] if name.strip() in ("style_weights", "learning_rate") else [[3.0]]),
        ):
            with pytest.raises(InputError, match=rf"^{name.strip()} is "):
                call(value)


def test_a_number_of_steps_that_is_no_integer_is_refused():
    calls: list[Any] = [
        partial(stylize, PARAMS, GRAY, GRAY, **TOY),
        partial(sweep, PARAMS, GRAY, GRAY, **BATCH),
        partial(texture, PARAMS, GRAY, key=SEED, height=16, width=16, **TOY),
        partial(reconstruct, PARAMS, GRAY, key=SEED, content_layers=("full",), **TOY),
        partial(run_steps, init_state(GRAY, objective=toy.OBJECTIVE), PARAMS, toy.TARGETS, network=toy.network),
        partial(plan, 16, 20),
    ]
    for call in calls:
        for value in (3.0, True, "3", 2**31, np.ones(1, np.int32)):
            with pytest.raises(InputError, match="^steps is .*: use a whole number from 1 to 2147483647"):
                call(steps=value)


# Several styles, and their statistics


@pytest.mark.slow
def test_statistics_and_a_mixture_of_one_style_serve_as_its_picture():
    content, style = pictures(32, 40)
    options: dict[str, Any] = TOY | {"steps": 3}
    other = style[::-1, ::-1] ** 2
    from_picture = stylize(PARAMS, content, style, **options)
    saved = jax.jit(partial(summarize_style, objective=toy.OBJECTIVE, network=toy.network))(PARAMS, style)
    none = jax.tree.map(jnp.zeros_like, saved)
    for styles in (saved, [saved], {40: saved, 900: none}, {9: none, 30: saved, 60: none}):
        np.testing.assert_allclose(from_picture.image, stylize(PARAMS, content, styles, **options).image, atol=1e-4)
    mixed = stylize(PARAMS, content, [style, other], style_weights=[2.0, 0.0], **options)
    np.testing.assert_allclose(from_picture.image, mixed.image, atol=1e-4)


# Colors


def test_recolor_changes_each_style_by_the_named_method(monkeypatch):
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
        ground, actual = change.__wrapped__(content, styles, change=how)
        assert (ground[0] == "luminance" and ground[1] is content) if how == "keep" else ground is content
        for (name, style, of, inputs), own in zip(actual, styles, strict=True):
            assert (name, inputs) == (expected, form) and style is own and of is content
    ground, actual = recolor(content, styles[0])
    assert ground is content and len(actual) == 1 and actual[0] is styles[0]


@pytest.mark.parametrize(
    ("how", "shape", "styles", "message"),
    [
        ("match", (2, 16, 20, 3), None, r"Color 'match' needs a single content \[H, W, 3\]: use jax.vmap"),
        ("none", (16, 20, 3), [], "There is no style: pass a picture, or a sequence of at least one"),
        ("keep", (16, 20, 3), [{}], "Saved statistics cannot be recolored with color 'keep'"),
    ],
)
def test_styles_without_colors_to_change_are_refused(how, shape, styles, message):
    inputs = [pictures()[1]] if styles is None else styles
    refused(message, partial(recolor, color=how), np.zeros(shape, np.float32), inputs)


@pytest.mark.slow
def test_preserved_colors_are_those_of_the_content_wherever_they_can_be():
    """Chroma is the content's in every pixel that is not clipped, over two scales."""
    content, style = pictures(32, 40)
    image = stylize(PARAMS, content, style, **TOY | {"color": "keep", "scales": 2, "steps": 12}).image
    chroma = [np.asarray(x - color.luminance(x)) for x in (image, content)]
    inside = np.asarray((image > 0) & (image < 1)).all(-1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(chroma[0][inside], chroma[1][inside], atol=1e-5)
    assert np.abs(np.asarray(image - content)).max() > 0.05


# Regions


@pytest.mark.slow(optimized=True)
def test_pixels_outside_all_masks_stay_as_they_are_bit_for_bit():
    """Over two scales, and where colors are preserved."""
    content, style = pictures(32, 40)
    mask = np.zeros((1, 32, 40), np.float32)
    mask[:, 4:20, :18] = 1
    options: dict[str, Any] = TOY | {"scales": 2, "color": "keep", "steps": 6}
    image = np.asarray(stylize(PARAMS, content, style, content_masks=jnp.asarray(mask), **options).image)
    outside = mask[0] == 0
    np.testing.assert_array_equal(image[outside], content[outside])
    assert np.abs(image - content)[~outside].mean() > 0.01


@pytest.mark.slow
def test_one_region_of_everything_is_no_region():
    content, style = pictures()
    options: dict[str, Any] = TOY | {"steps": 3}
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
    options: dict[str, Any] = {"steps": 100, "content_masks": jnp.stack([left, 1 - left])}
    options["objective"] = dataclasses.replace(OBJECTIVE, content={"relu2_2": 0.01}, tv=0.0)
    one, other = (stylize(params, content, styles, **options).image for styles in ([dark, bright], [bright, dark]))
    assert one[:, :18].mean() < other[:, :18].mean() - 0.1
    assert one[:, 22:].mean() > other[:, 22:].mean() + 0.1


@pytest.mark.slow
def test_a_soft_mask_is_optimized_as_it_is_composed(params, content, style):
    """The first total of a run is that of the picture that would be saved."""

    @jax.jit
    def program(start):
        mask = jnp.full((1, 32, 40), 0.5)
        targets = make_targets(params, content, style, objective=OBJECTIVE, content_masks=mask)
        features = image_features(params, (content + start) / 2, network=VGG19(), layers=("relu2_2",))["relu2_2"]
        state = init_state(start, objective=OBJECTIVE, optimizer=Adam())
        _, history = run_steps(state, params, targets, OBJECTIVE, steps=1)
        return history["content/relu2_2"][0], features, targets.content["relu2_2"]

    actual, features, target = map(np.float64, program(1 - content))
    assert actual == pytest.approx(np.sum((features - target) ** 2) / np.sum(target**2), rel=1e-4)


def test_a_style_mask_selects_part_of_a_style():
    """The right half is outside the mask; a layer of single pixels does not see across the border."""
    style, other = pictures()
    both, mask = np.concatenate([style, other], axis=1), np.zeros((16, 40), np.float32)
    mask[:, :20] = 1
    options: dict[str, Any] = {"objective": Objective(content={}, style={"full": 1.0}), "network": toy.network}
    masked, alone = jax.jit(
        lambda both, style, mask: (
            summarize_style(PARAMS, both, mask=mask, **options)["full"],
            summarize_style(PARAMS, style, **options)["full"],
        )
    )(both, style, mask)
    np.testing.assert_allclose(masked.mean, alone.mean, rtol=1e-4)
    np.testing.assert_allclose(masked.second, alone.second, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["sliced", "wasserstein"])
def test_regions_work_with_other_statistics(statistic):
    content, style = pictures()
    mask = np.zeros((1, 16, 20), np.float32)
    mask[:, :, :10] = 1
    options: dict[str, Any] = TOY | {"steps": 8, "content_masks": jnp.asarray(mask)}
    options["objective"] = dataclasses.replace(toy.OBJECTIVE, statistic=statistic)
    result = stylize(PARAMS, content, style, key=jax.random.key(0), **options)
    assert result.history["total"][-1] < result.history["total"][0]
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
    extra = dataclasses.replace(
        toy.OBJECTIVE, extra={"none": 1.0}, extra_terms={"none": lambda *_: 0.0}, extra_layers=("half",)
    )
    layers: dict[str, Any] = {"content_layers": ("full",), "style_layers": ("full", "half")}
    inputs: dict[str, Any] = TOY | layers | {"objective": extra}
    reconstruct(PARAMS, image, key=key, tv=0.3, steps=9, **inputs)
    reconstruct(PARAMS, image, key=key, content_layers=("relu5_1",))
    (arrays, options), (_, default) = called
    assert arrays[0] is PARAMS and arrays[1] is image and arrays[2] is image
    third = 1 / 3
    weights = {"content": {"full": third}, "style": {"full": third, "half": third}, "tv": 0.3}
    assert options["objective"] == dataclasses.replace(toy.OBJECTIVE, **weights)
    assert all(options[name] is TOY[name] for name in ("network", "optimizer", "scales"))
    assert (options["key"] is key, options["steps"], options["init"]) == (True, 9, "noise")
    assert default["objective"] == Objective(content={"relu5_1": 1.0}, style={}, tv=0.0)


def test_a_texture_starts_from_noise_of_its_size_and_has_no_content(called):
    style, key = pictures()[1], jax.random.key(0)
    for tileable in (False, True):
        options: dict[str, Any] = {"optimizer": Adam(), "steps": 9, "scales": 1, "style_weights": [1.0]}
        size: dict[str, Any] = {"height": 24, "width": 32, "tileable": tileable}
        network = VGG19(pooling="avg")
        texture(PARAMS, [style], key=key, objective=OBJECTIVE, network=network, **size, **options)
        arrays, actual = called[-1]
        assert arrays[0] is PARAMS and arrays[1].shape == (24, 32, 3) and arrays[2][0] is style
        assert actual["network"] == VGG19(pooling="avg", padding="circular" if tileable else "zeros")
        assert actual["objective"] == dataclasses.replace(OBJECTIVE, content={})
        assert {name: actual[name] for name in options} == options
        assert (actual["key"] is key, actual["init"]) == (True, "noise")


@pytest.mark.slow
def test_a_reconstruction_has_the_features_of_the_image_and_not_the_start(params, content):
    actual = reconstruct(params, content, key=jax.random.key(0), content_layers=("conv1_1",), steps=60)
    assert set(actual.history) == {"content/conv1_1", "tv", "total", "range_penalty"}
    closer(actual, names=("total",), share=0.2)
    image, content = np.asarray(actual.image), np.asarray(content)
    assert np.square(image - content).mean() < 0.5 * np.square(content - content.mean()).mean()


@pytest.mark.slow
def test_a_reconstruction_from_style_layers_has_their_statistics(params, content):
    layers = ("relu1_1", "relu2_1")
    image, _ = reconstruct(params, content, key=jax.random.key(0), steps=40, content_layers=(), style_layers=layers)
    noise = jax.random.uniform(jax.random.key(0), content.shape)
    layer = jax.jit(lambda image: image_features(params, image, network=VGG19(), layers=layers)["relu2_1"])
    grams = [toy.gram(np.asarray(layer(each))) for each in (content, image, noise)]
    assert np.linalg.norm(grams[1] - grams[0]) < 0.2 * np.linalg.norm(grams[2] - grams[0])


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_a_texture_has_the_statistics_of_its_style_and_no_seam_if_it_is_tileable(params, style):
    """At two scales: the step across the border is hardly larger than steps elsewhere only if it is tileable."""
    objective = dataclasses.replace(OBJECTIVE, content={"relu5_1": 1.0})  # is ignored
    options: dict[str, Any] = {"objective": objective, "scales": (32, 64), "steps": 40, "height": 64, "width": 64}

    def seam(tileable: bool) -> float:
        actual = texture(params, style, key=jax.random.key(0), tileable=tileable, **options)
        image = np.asarray(actual.image)
        assert image.shape == (64, 64, 3) and not any(name.startswith("content") for name in actual.history)
        assert actual.history["total"][-1] < 0.3 * actual.history["total"][0]
        steps = np.concatenate([np.abs(np.roll(image, -1, i) - image).mean((1 - i, 2)) for i in (0, 1)])
        return (steps[63] + steps[127]) / 2 / np.median(steps)

    assert seam(True) < 1.4 and seam(False) > 2


@pytest.mark.slow
def test_checkify_finds_values_that_jit_cannot_check():
    picture: Any = np.full((toy.HEIGHT, toy.WIDTH, 3), 0.5, np.float32)

    @checkify.checkify
    @jax.jit
    def run(content, style, style_weights):
        return stylize(toy.PARAMS, content, [style, picture], style_weights=style_weights, steps=1, **TOY).image

    for arguments, message in [
        ((picture, picture, np.ones(2)), None),
        ((2 * picture + 1, picture, np.ones(2)), "The content has values from 2"),
        ((picture, picture * np.nan, np.ones(2)), "The style has values from nan"),
        ((picture, picture, np.array([1.0, -1.0])), "style_weights are negative"),
    ]:
        error, _ = run(*arguments)
        assert error.get() is None if message is None else message in str(error.get())
