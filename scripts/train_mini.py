"""Train the mini network: VGG-19 narrowed to about a quarter, whose channels stand for some of VGG-19's own.

It starts from VGG-19 itself: layer by layer those channels are kept that span the others best, and kernels are fitted
by least squares to give them from what the narrowed layers before give. Then Adam trains all layers at once to predict
the kept channels; the loss is the share of their energy that is left unexplained. Part of the pictures are the
student's own: what it paints shows where it still errs.

    python scripts/train_mini.py vgg19.h5 --images photographs

The work goes in rounds; after each the checkpoint is written, and the same command goes on from there. The same seed
gives the same pictures.

Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, arXiv:1503.02531.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import serialization
from narrowing import BATCH, Narrowed, Student, mixed, plain, start
from numpy.typing import NDArray
from PIL import Image
from training_pictures import cut, draw, made_up, photographs, repaint
from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.errors import InputError, user_error
from jaxstyle.files import sha256
from jaxstyle.networks import weights_io
from jaxstyle.networks.pretrained import LICENCE
from jaxstyle.networks.vgg import CONV_LAYERS, VGG19, Params, Widths

WIDTHS: Widths = ((16, 16), (32, 32), (64,) * 4, (128, 128, 128, 160), (256, 64, 64, 64))
READ = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2"), 1.0) | {"relu5_1": 2.0}
WARM_UP = 50  # steps until the learning rate is at its highest
LIGHTLY = 0.05  # the weight of the layers that no preset reads
NEAR, FAR = (6, 12, 24), (6, 12, 24, 40, 60)  # steps between the student's own pictures, in the first rounds and later
FAR_FROM = 4  # rounds


class Progress(NamedTuple):
    """All that the next round needs.

    Attributes:
        student: what is learned.
        state: the optimiser's.
        narrowed: what is fixed.
        round: how many are done.
    """

    student: Student
    state: Any
    narrowed: Narrowed
    round: int


@dataclass(frozen=True)
class Training:
    """How long and on what."""

    rounds: int = 18
    """Rounds in all; pictures are drawn and taught anew for each."""
    pictures: int = 192
    """Pictures a round."""
    epochs: int = 3
    """How often a round goes over its pictures."""
    batch: int = 3
    """Pictures a step."""
    side: int = 160
    """Pixels of their sides."""
    repainted: int = 8
    """Pairs a round that the student repaints; pictures on the way are trained on, beside the others."""
    learning_rate: float = 5e-4
    """The highest, after a start of 50 steps; from there it falls to zero along a cosine."""
    seed: int = 0
    """Of everything drawn."""

    def __post_init__(self) -> None:
        """Refuse what would end in the middle."""
        if self.pictures % self.batch:
            raise InputError(f"{self.pictures} pictures make no whole batches of {self.batch}: use a multiple.")
        if self.repainted % 4 or self.repainted * len(FAR) > self.pictures:
            limit = f"a multiple of 4 up to {self.pictures // len(FAR)}"
            raise InputError(f"{self.repainted} repainted pairs do not fit {self.pictures} pictures: use {limit}.")
        if self.side % 16 or not self.side:
            raise InputError(f"Pictures of {self.side} pixels cannot be halved four times: use a multiple of 16.")
        if self.rounds * self.steps <= WARM_UP:
            raise InputError(f"{self.rounds * self.steps} steps are fewer than {WARM_UP}: use more rounds or pictures.")

    @property
    def steps(self) -> int:
        """Steps a round."""
        return self.epochs * (self.pictures // self.batch)

    def optimizer(self) -> optax.GradientTransformation:
        """Return Adam with its schedule."""
        schedule = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, WARM_UP, self.rounds * self.steps)
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


@jax.jit
def lessons(teacher: Params, chosen: Mapping[str, jax.Array], images: jax.Array) -> dict[str, jax.Array]:
    """Return the teacher's kept channels at every layer, in half precision."""
    activations: Any = VGG19.from_params(teacher, conv=mixed).apply({"params": teacher}, images / 255.0)
    return {
        name: activations["relu" + name[4:]][..., channels].astype(jnp.float16) for name, channels in chosen.items()
    }


def errors(params: Params, images: jax.Array, targets: Mapping[str, jax.Array], scales: Any) -> dict[str, jax.Array]:
    """Return by layer the share of energy that the student leaves unexplained, all channels being equal."""
    activations: Any = VGG19.from_params(params, conv=mixed).apply({"params": params}, images / 255.0)
    shares = {}
    for name, scale in scales.items():
        target = targets[name].astype(jnp.float32)
        miss, whole = (
            jnp.mean(x**2, axis=(0, 1, 2)) / scale**2 for x in (target - activations["relu" + name[4:]], target)
        )
        shares["relu" + name[4:]] = jnp.sum(miss) / jnp.sum(whole)
    return shares


@partial(jax.jit, static_argnames="training", donate_argnums=(0, 1))
def teach(
    student: Student, state: Any, narrowed: Narrowed, images: jax.Array, targets: dict, *, training: Training
) -> tuple[Student, Any, dict[str, jax.Array]]:
    """Take one step on `images`, `[N, H, W, 3]` in 0..255; return the errors by layer beside what was learned."""

    def loss(student: Student) -> tuple[jax.Array, dict[str, jax.Array]]:
        shares = errors(plain(student, narrowed), images, targets, narrowed.scales)
        return sum((READ.get(layer, LIGHTLY) * share for layer, share in shares.items()), jnp.zeros(())), shares

    gradient, shares = jax.grad(loss, has_aux=True)(student)
    updates, state = training.optimizer().update(gradient, state, student)
    learned: Any = optax.apply_updates(student, updates)
    return learned, state, shares


def gather(params: Params, sources: list[Image.Image], number: int, training: Training) -> NDArray[np.uint8]:
    """Return the pictures of round `number`, the student's own among them."""
    rng, side = np.random.default_rng((training.seed, number)), training.side
    snapshots = NEAR if number < FAR_FROM else FAR
    pictures = [draw(rng, side, sources) for _ in range(training.pictures - training.repainted * len(snapshots))]
    for _ in range(training.repainted // 4):
        contents = [cut(rng, side, sources) if sources else made_up(rng, side) for _ in range(4)]
        styles = [draw(rng, side, sources) for _ in range(4)]
        pairs = (jnp.asarray(np.stack(x) / np.float32(255)) for x in (contents, styles))
        painted = repaint(params, *pairs, snapshots=snapshots, network=VGG19(conv=mixed))
        pictures.extend(np.asarray(255 * painted + 0.5).astype(np.uint8).reshape(-1, side, side, 3))
    return np.stack(pictures)


def go_round(progress: Progress, teacher: Params, sources: list[Image.Image], training: Training) -> Progress:
    """Return the progress after one more round: gather pictures, look at them with the teacher, learn, report."""
    began = time.perf_counter()
    student, state, narrowed, number = progress
    pictures = gather(plain(student, narrowed), sources, number, training)
    looks = [lessons(teacher, narrowed.kept, part) for part in np.split(pictures, len(pictures) // training.batch)]
    targets = {name: jnp.concatenate([look[name] for look in looks]) for name in CONV_LAYERS}
    rng, sums = np.random.default_rng((training.seed, number, 1)), dict.fromkeys(READ, 0.0)
    for _ in range(training.epochs):
        for rows in np.split(rng.permutation(len(pictures)), len(pictures) // training.batch):
            lesson = {name: target[rows] for name, target in targets.items()}
            student, state, shares = teach(student, state, narrowed, pictures[rows], lesson, training=training)
            sums = {layer: sums[layer] + float(shares[layer]) for layer in READ}
    table = ", ".join(f"{layer} {total / training.steps:.3f}" for layer, total in sums.items())
    print(f"round {number + 1} of {training.rounds}, {time.perf_counter() - began:.0f} s: {table}", flush=True)
    return Progress(student, state, narrowed, number + 1)


def begin(teacher: Params, sources: list[Image.Image], training: Training) -> Progress:
    """Return the progress before the first round."""
    student, narrowed = start(teacher, drawn(training.pictures, sources, training, stream=training.rounds), WIDTHS)
    return Progress(student, training.optimizer().init(student), narrowed, 0)


def drawn(count: int, sources: list[Image.Image], training: Training, *, stream: int) -> NDArray[np.uint8]:
    """Return pictures of their own random stream; the rounds have those from 0."""
    rng = np.random.default_rng((training.seed, stream))
    return np.stack([draw(rng, training.side, sources) for _ in range(count)])


def keep(checkpoint: Path, progress: Progress, run_of: str) -> None:
    """Write the progress of the run that `run_of` describes, whole or not at all."""
    temporary = checkpoint.with_suffix(".part")
    temporary.write_bytes(serialization.msgpack_serialize({"run": run_of, **serialization.to_state_dict(progress)}))
    os.replace(temporary, checkpoint)


def resume(checkpoint: Path, training: Training, run_of: str) -> Progress | None:
    """Return the progress that `keep` wrote, if it did, of the same run."""
    if not checkpoint.exists():
        return None
    saved: Any = serialization.msgpack_restore(checkpoint.read_bytes())
    if saved["run"] != run_of:
        raise InputError(f"{checkpoint} is of another run ({saved['run']}): remove it or name another --checkpoint.")
    student = jax.tree.map(jnp.asarray, saved["student"])
    state = serialization.from_state_dict(training.optimizer().init(student), saved["state"])
    narrowed = Narrowed(**jax.tree.map(jnp.asarray, saved["narrowed"]))
    return Progress(student, jax.tree.map(jnp.asarray, state), narrowed, saved["round"])


def examine(params: Params, teacher: Params, narrowed: Narrowed, pictures: NDArray[np.uint8]) -> dict[str, float]:
    """Return by layer the share of the teacher's energy that `params` leaves unexplained on `pictures`."""
    look = jax.jit(lambda teacher, part: errors(params, part, lessons(teacher, narrowed.kept, part), narrowed.scales))
    shares = [look(teacher, part) for part in np.split(pictures, len(pictures) // BATCH)]
    return {layer: float(np.mean([share[layer] for share in shares])) for layer in shares[0]}


def main(
    weights: Positional[Path],
    *,
    images: Annotated[tuple[Path, ...], arg(metavar="DIR")] = (),
    out: Path = Path("weights/vgg19_mini.h5"),
    checkpoint: Path = Path("train_mini.msgpack"),
    training: OmitArgPrefixes[Training] = Training(),
) -> None:
    """Teach a narrow network what the network of WEIGHTS sees, and write it in half precision.

    Args:
        weights: the teacher's file, a whole VGG-19.
        images: folders of photographs to train on beside what is drawn.
        out: where to write the network.
        checkpoint: where the state is kept from round to round; if it is there, training goes on from it.
        training: how long and on what.
    """
    if bad := [path for path in (out, checkpoint) if path.is_dir() or not path.absolute().parent.is_dir()]:
        raise InputError(f"{bad[0]} is a folder or lacks one: name a file in a folder that exists.")
    sources = photographs(images)
    widths = weights_io.widths(weights)
    if widths == WIDTHS or any(a < b for a, b in zip(sum(widths, ()), sum(WIDTHS, ()), strict=True)):
        raise InputError(f"{weights} is not wider than what is to be made of it, {WIDTHS}: name a whole VGG-19.")
    teacher = jax.tree.map(jnp.asarray, weights_io.read(weights))
    digest = sha256(weights)
    run_of = f"teacher {digest}, {len(sources)} photographs, widths {WIDTHS}, {training}"
    progress = resume(checkpoint, training, run_of) or begin(teacher, sources, training)
    while progress.round < training.rounds:
        progress = go_round(progress, teacher, sources, training)
        keep(checkpoint, progress, run_of)
    network = jax.tree.map(lambda x: np.asarray(x, np.float16), plain(progress.student, progress.narrowed))
    unseen = drawn(4 * BATCH, sources, training, stream=training.rounds + 1)
    shares = examine(jax.tree.map(jnp.float32, network), teacher, progress.narrowed, unseen)
    table = ", ".join(f"{layer} {share:.3f}" for layer, share in shares.items())
    weights_io.write(
        out,
        network,
        source="VGG-19, narrowed and distilled by scripts/train_mini.py",
        checksum=f"sha256:{digest}",
        licence=LICENCE,
        training=f"{training.rounds * training.steps} steps; {run_of}; unexplained energy: {table}",
    )
    print(f"{out}: {out.stat().st_size:,} bytes; unexplained energy on {len(unseen)} more pictures:")
    print(*(f"{layer}  {share:.3f}" for layer, share in shares.items()), sep="\n")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (InputError, OSError) as error:
        sys.exit(f"train_mini.py: {user_error(error) or error}")
