"""The five scripts about derivatives of the method, against independent oracles, with a tiny network."""

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import Adam, Objective, init_state, make_targets, run_steps, terms
from jaxstyle.images.load import load_image
from jaxstyle.images.save import save_image
from jaxstyle.networks import pretrained

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name: str, **constants: Any) -> dict[str, Any]:
    """Return the globals of a script, with some of its constants replaced."""
    result = runpy.run_path(str(SCRIPTS / f"{name}.py"))
    result["main"].__globals__.update(constants)
    return result["main"].__globals__


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """Put the scripts on Python's path, as running one of them does."""
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def started(tmp_path, monkeypatch, params, content, style):
    """Run a script as a process does, on two small pictures and a tiny network, and return the saved picture."""
    save_image(tmp_path / "content.png", np.asarray(content)[:32, :32])
    save_image(tmp_path / "style.png", np.asarray(style)[:32, :32])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "load_params", lambda network: params)

    def run(name: str, *options: str, **constants: Any) -> np.ndarray:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "content.png", "style.png", "out.png", *options])
        actual = script(name, SIZE=32, **constants)
        actual["start"](actual["main"])
        return load_image(tmp_path / "out.png").rgb

    return run


# tune_weights


def responding(curve: Any, slope: Any) -> Any:
    """Return a response without a network, and the list of the weights at which it is evaluated."""
    asked: list[float] = []

    def respond(at: jax.Array) -> tuple[Any, Any, Any]:
        asked.append(float(at))
        return curve(float(at)), slope(float(at)), float(at)

    return respond, asked


def logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-0.7 * (x + 2))))


def test_newton_meets_a_logistic_response_in_two_tries():
    tune = script("tune_weights")["tune"]
    for share in (0.1, 0.5, 0.9):
        respond, asked = responding(logistic, lambda x: 0.7 * logistic(x) * (1 - logistic(x)))
        assert abs(logistic(tune(respond, share)) - share) < 1e-3 and len(asked) == 2


def test_a_wrong_derivative_only_costs_more_tries():
    tune = script("tune_weights")["tune"]
    for wrong in (0.0, -15.0, 1e4, np.nan, np.inf, 1e-9):
        respond, asked = responding(logistic, lambda _, wrong=wrong: wrong)
        assert abs(logistic(tune(respond, 0.3)) - 0.3) < 0.01 and len(asked) <= 14


def test_a_share_that_no_weight_reaches_is_an_error():
    actual = script("tune_weights")
    for end in (0.85, 0.0):
        respond, asked = responding(
            lambda x, end=end: end * logistic(x), lambda x, end=end: 0.7 * end * logistic(x) * (1 - logistic(x))
        )
        with pytest.raises(actual["InputError"], match="share of 0.9 .* 60 steps"):
            actual["tune"](respond, 0.9)
        assert max(asked) < 6.91 and len(asked) <= 16


@pytest.mark.slow
def test_tuning_reaches_the_share_that_a_separate_run_measures(started, params, capsys):
    share = 0.8
    optimizer = Adam(learning_rate=0.01, eps=1e-3)
    actual = started("tune_weights", "--share", str(share), STEPS=20, OPTIMIZER=optimizer)
    weight = float(capsys.readouterr().out.splitlines()[-1].split("weight ")[1].split(",")[0])
    content, style = (jnp.asarray(load_image(name).rgb) for name in ("content.png", "style.png"))
    objective = Objective(style=dict.fromkeys(Objective().style, weight))
    targets = make_targets(params, content, style, objective=objective)
    start = init_state(content, objective=objective, optimizer=optimizer)
    state, _ = run_steps(start, params, targets, objective, steps=20)
    before, after = (
        sum(float(v) for k, v in terms(params, x, targets, objective=objective).items() if k.startswith("style"))
        for x in (content, state.image)
    )
    assert abs(1 - after / before - share) < 0.02
    assert np.abs(actual - state.image).max() < 0.02


# sensitivity


@pytest.mark.slow
def test_the_sensitivity_is_the_central_difference_of_two_runs(params, content, style):
    sensitivity = script("sensitivity", STEPS=6)["sensitivity"]
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, content, style))
        each = [map(np.asarray, sensitivity(*inputs, float(np.exp(d)))) for d in (-1e-5, 0.0, 1e-5)]
    (below, _), (painted, change), (above, _) = each
    assert painted.shape == change.shape == content.shape and np.abs(change).max() > 1e-3
    assert np.linalg.norm(change - (above - below) / 2e-5) < 1e-4 * np.linalg.norm(change)


@pytest.mark.soak(long=True)
def test_the_sensitivity_is_drawn_beside_the_picture(started, capsys):
    page = started("sensitivity", STEPS=3)
    assert page.shape[1] >= 64 and "root mean square" in capsys.readouterr().out
    assert np.ptp(page[:64, 68:132]) > 0.9 and abs(page[:64, 68:132].mean() - 0.5) < 0.2


# curvature


@pytest.mark.slow
def test_lanczos_finds_the_leading_eigenpairs_of_a_matrix():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(48, 48)))
    exact = np.concatenate([[100.0, -60.0, 30.0, 10.0], rng.uniform(-1, 1, 44)])
    matrix = jnp.asarray(basis * exact @ basis.T, jnp.float32)
    start = jnp.asarray(rng.normal(size=(4, 4, 3)), jnp.float32)
    lanczos = script("curvature")["lanczos"]
    values, vectors = lanczos(lambda v: (matrix @ v.ravel()).reshape(v.shape), start, 30, 4)
    np.testing.assert_allclose(values, exact[:4], rtol=1e-5)
    overlaps = np.abs(np.asarray(vectors).reshape(4, -1) @ basis[:, :4])
    np.testing.assert_allclose(overlaps, np.eye(4), atol=1e-4)


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_lanczos_finds_the_leading_eigenvalues_of_the_losses_hessian(params, content, style):
    names = script("curvature", STEPS=5)
    product, picture = names["hessian_product"](params, content[:16, :16], style[:16, :16])
    size = picture.size
    dense = jax.lax.map(lambda v: product(v.reshape(picture.shape)).ravel(), jnp.eye(size))
    assert np.abs(dense - dense.T).max() < 1e-4 * np.abs(dense).max()
    exact = np.linalg.eigvalsh(np.asarray((dense + dense.T) / 2, np.float64))
    exact = exact[np.argsort(-np.abs(exact))]
    start = jax.random.normal(jax.random.key(0), picture.shape)
    values, _ = names["lanczos"](product, start, 40, 3)
    np.testing.assert_allclose(values, exact[:3], rtol=1e-3)


@pytest.mark.soak(long=True)
def test_the_curvature_prints_a_residual_for_each_picture(started, capsys):
    page = started("curvature", STEPS=3, PRODUCTS=30, PAIRS=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(float(line.split()[-1]) < 0.05 for line in lines)
    assert page.shape[1] >= 3 * 32


# pareto


@pytest.mark.soak(long=True)
def test_along_the_front_content_rises_and_style_falls(started, monkeypatch, params, content, style):
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install -e '.[plots]'")
    names = script("pareto", STEPS=60, WEIGHTS=(0.03, 0.3, 3.0))
    points, pictures = names["front"](params, content, style)
    assert (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) < 0).all()
    actual = terms(params, jnp.asarray(pictures[-1]), make_targets(params, content, style))
    mean = np.mean([actual[f"style/{layer}"] for layer in Objective().style])
    np.testing.assert_allclose(points[-1], [actual["content/relu4_2"], mean], rtol=1e-4)


@pytest.mark.soak(long=True)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_front_is_drawn(started):
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install -e '.[plots]'")
    page = started("pareto", STEPS=2, WEIGHTS=(0.1, 1.0, 10.0))
    assert page.shape[0] > 500 and np.ptp(page) == 1


# ensemble


@pytest.mark.soak(long=True)
def test_the_ensemble_shows_the_deviation_between_networks(started, capsys):
    page = started("ensemble", STEPS=4, NETWORKS=2)
    assert page.shape[0] > 96 and "2 networks, noise" in capsys.readouterr().out
    assert np.ptp(page[:96, 100:196]) > 0.9  # the deviation, from near black to white


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_equal_networks_give_the_picture_of_a_single_run(params, content, style):
    same = script("ensemble", STEPS=4, NETWORKS=2)["ensemble"](params, content, style, 0.0)
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)
    alone, _ = run_steps(init_state(content), params, make_targets(params, content, style), steps=4)
    np.testing.assert_allclose(same[0], alone.image, atol=1e-3)


@pytest.mark.slow
def test_disturbed_networks_have_independent_relative_noise(params):
    disturbed, params = script("ensemble")["disturbed"], {name: params[name] for name in ("conv1_2", "conv5_1")}
    one, other = (disturbed(params, jax.random.key(seed), 0.1) for seed in (0, 1))
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, params)
    for name, layer in params.items():
        noise = np.asarray(one[name]["kernel"] / layer["kernel"] - 1)
        assert abs(noise.std() - 0.1) < 0.03 and np.abs(one[name]["kernel"] - other[name]["kernel"]).max() > 0
        assert one[name]["bias"] is layer["bias"]


def test_a_file_that_is_no_picture_ends_each_script_with_one_sentence(started, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)  # also without matplotlib
    Path("style.png").write_text("no picture")
    for name in ("tune_weights", "pareto", "sensitivity", "curvature", "ensemble"):
        with pytest.raises(SystemExit, match=rf"^{name}.py: style.png is not a picture .*\.$"):
            started(name)
