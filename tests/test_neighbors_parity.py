"""Terms of NNST and STROTSS against PyTorch, written from their description, on activations of real pictures."""

from typing import Any

import jax
import numpy as np
import pytest
from vgg_layers import features

from jaxstyle.images.load import load_image
from jaxstyle.losses import neighbors, relaxed_emd
from jaxstyle.networks import pretrained

pytestmark = pytest.mark.parity

LAYERS = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3")
OF_NNST = tuple(f"relu{name}" for name in LAYERS)
OF_STROTSS = tuple(f"relu{name}" for name in (*LAYERS[:7], "4_3", "5_3"))
UNSAMPLED = OF_NNST[2:]  # of at most 64 positions a side
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def torch():
    """PyTorch, which is slow to import: not at collection."""
    return pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")


@pytest.fixture(scope="module")
def activations(weights_path, real_pictures):
    """The picture itself and its layers, for a photograph, a painting, and a blend of both as the image."""
    params = pretrained.load_params(weights_path)
    names = ("golden_gate.jpg", "starry_night_google.jpg")
    content, style = (np.asarray(load_image(real_pictures / name, size=64).rgb) for name in names)
    image = 0.8 * content + 0.2 * style[: content.shape[0], : content.shape[1]].mean((0, 1))
    layers = sorted({*OF_NNST, *OF_STROTSS})
    evaluate = jax.jit(lambda x: features(params, x, layers=layers))
    with jax.default_matmul_precision("highest"):
        result = [evaluate(x) for x in (content, style, image)]
    return [{"image": x, **each} for x, each in zip((content, style, image), jax.device_get(result), strict=True)]


def chosen(layers: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: layers[name] for name in names}


def relative(ours: Any, theirs: Any) -> float:
    theirs = theirs.detach().numpy()
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))


def leaves(torch, layers: dict[str, Any]) -> dict[str, Any]:
    """Return tensors `[1, C, h, w]` that collect gradients."""
    return {name: torch.tensor(x).permute(2, 0, 1)[None].requires_grad_() for name, x in layers.items()}


def assert_same_gradients(gradient: dict[str, Any], tensors: dict[str, Any]) -> None:
    for name, slope in gradient.items():
        assert relative(slope, tensors[name].grad[0].permute(1, 2, 0)) < TOLERANCE, name


def columns_of_torch(torch, tensors, height: int, width: int):
    """Return `[h w, C]`: layers divided by their channels, resized with common corners and concatenated."""
    resized = [
        torch.nn.functional.interpolate(x / x.shape[1], (height, width), mode="bilinear", align_corners=True)
        for x in tensors.values()
    ]
    return torch.cat(resized, 1)[0].flatten(1).T


def centered_distances(torch, query, reference):
    query, reference = query - query.mean(0), reference - reference.mean(0)
    return 1 - torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(reference).T


def test_targets_and_loss_of_hypercolumns_agree_with_pytorch(torch, activations):
    content, style, image = (chosen(each, OF_NNST) for each in activations)
    grids = [tuple(side // 4 for side in each["relu1_1"].shape[:2]) for each in (content, style)]

    @jax.jit
    def ours(image, content, style):
        reference = neighbors.hypercolumns(style, grids[1])
        targets = neighbors.matched_targets(neighbors.hypercolumns(content, grids[0]), reference, chunk=100)

        def loss(image):
            return neighbors.cosine_distance(neighbors.hypercolumns(image, grids[0]), targets)

        return targets, *jax.value_and_grad(loss)(image)

    targets, value, gradient = ours(image, content, style)
    tensors = leaves(torch, image)
    reference = columns_of_torch(torch, leaves(torch, style), *grids[1]).detach()
    query = columns_of_torch(torch, leaves(torch, content), *grids[0]).detach()
    expected = reference[centered_distances(torch, query, reference).argmin(1)]
    assert relative(targets.reshape(-1, targets.shape[-1]), expected) < TOLERANCE
    actual = columns_of_torch(torch, tensors, *grids[0])
    loss = (1 - torch.nn.functional.cosine_similarity(actual, expected)).mean()
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=TOLERANCE)
    assert_same_gradients(gradient, tensors)


def test_split_losses_agree_with_pytorch(torch, activations):
    _, style, image = (chosen(each, UNSAMPLED) for each in activations)

    @jax.jit
    def ours(image, style):
        def loss(image):
            each = neighbors.split_loss(image, [style], key=jax.random.key(0))
            return sum(each.values()), each

        return jax.value_and_grad(loss, has_aux=True)(image)

    (_, each), gradient = ours(image, style)
    tensors, references = leaves(torch, image), leaves(torch, style)
    for name, x in tensors.items():
        query, reference = (tensor[0].flatten(1).T for tensor in (x, references[name].detach()))
        loss = centered_distances(torch, query, reference).min(1).values.mean()
        loss.backward()
        assert each[name] == pytest.approx(loss.item(), rel=TOLERANCE), name
    assert_same_gradients(gradient, tensors)


def sampled_by_torch(torch, tensors, positions):
    """Return `[n, C]`: each layer interpolated at the positions, which are halved at each pool."""
    result, size = [], None
    for x in tensors.values():
        if size is not None and x.shape[2] < size:
            positions = positions / 2
        size = x.shape[2]
        last = torch.tensor([x.shape[3] - 1, x.shape[2] - 1])
        points = (2 * positions.flip(1).double() / last - 1)[None, None]  # [1, 1, n, 2], x before y, in [-1, 1]
        result.append(
            torch.nn.functional.grid_sample(x, points.to(x.dtype), padding_mode="border", align_corners=True)[0, :, 0].T
        )
    return torch.cat(result, 1)


def relaxed(torch, distances):
    return torch.maximum(distances.min(1).values.mean(), distances.min(0).values.mean())


def test_terms_of_strotss_agree_with_pytorch(torch, activations):
    # In float64: the signs of differences near zero, by which the absolute values have their gradients, may tip.
    content, style, image = (
        {name: each[name].astype(np.float64) for name in ("image", *OF_STROTSS)} for each in activations
    )
    sizes = [each["image"].shape[:2] for each in (image, style)]
    axes = [relaxed_emd.sample_positions(*size, key=jax.random.key(i)) for i, size in enumerate(sizes)]
    positions = [np.stack(np.meshgrid(*each, indexing="ij"), axis=-1).reshape(-1, 2) for each in axes]
    at, of_style = axes
    of_image, of_painting = (torch.tensor(each) for each in positions)

    def columns(layers, axes):
        result = neighbors.hypercolumns(layers, axes, divisor="none")
        return result.reshape(-1, result.shape[-1])

    def terms(image, content, style):
        x, c, s = (columns(each, where) for each, where in ((image, at), (content, at), (style, of_style)))
        return {
            "emd": relaxed_emd.relaxed_emd(x, s, chunk=100),
            "moments": relaxed_emd.moment_distance(relaxed_emd.mean_covariance(x), relaxed_emd.mean_covariance(s)),
            "color": relaxed_emd.color_distance(x[:, :3], s[:, :3], chunk=100),
            "content": relaxed_emd.self_similarity(x, c),
        }

    @jax.jit
    def ours(image, content, style):
        def loss(image):
            result = terms(image, content, style)
            return sum(result.values()), result

        return jax.value_and_grad(loss, has_aux=True)(image)

    with jax.enable_x64(True):
        (_, actual), gradient = ours(image, content, style)
    tensors = leaves(torch, image)
    x = sampled_by_torch(torch, tensors, of_image)
    c = sampled_by_torch(torch, leaves(torch, content), of_image).detach()
    s = sampled_by_torch(torch, leaves(torch, style), of_painting).detach()
    normalize = torch.nn.functional.normalize

    def cosines(a, b):
        return 1 - normalize(a) @ normalize(b).T

    def self_distances(a):
        return cosines(a, a) / cosines(a, a).sum(0, keepdim=True)

    colors, palette = x[:, :3] - 0.5, s[:, :3] - 0.5
    euclidean = torch.sqrt((colors[:, None] - palette[None]).square().sum(2).clamp(min=1e-5) / 3)
    covariances = torch.cov(x.T, correction=0) - torch.cov(s.T, correction=0)
    expected = {
        "emd": relaxed(torch, cosines(x, s)),
        "moments": (x.mean(0) - s.mean(0)).abs().mean() + covariances.abs().mean(),
        "color": relaxed(torch, cosines(colors, palette) + euclidean),
        "content": (self_distances(x) - self_distances(c)).abs().mean() * len(x),
    }
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value.item(), rel=TOLERANCE), name
    torch.stack(list(expected.values())).sum().backward()
    assert_same_gradients(gradient, tensors)
