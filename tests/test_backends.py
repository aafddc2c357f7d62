"""A backend of JAX that does not start: one sentence with the variable's value, what works, and the cure."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from jaxstyle.cli import main
from jaxstyle.errors import InputError
from jaxstyle.runtime import backends
from jaxstyle.runtime.backends import check_backend

LOUD = " (set JAX_PLATFORMS='' to automatically choose an available backend)"
QUIET = " (you may need to uninstall the failing plugin package, or set JAX_PLATFORMS=cpu to skip this backend.)"
UNKNOWN = "Unknown backend {}. Available backends are ['cpu']"
NO_LIBTPU = "INTERNAL: Failed to open libtpu.so: libtpu.so: cannot open shared object file: No such file or directory"


@pytest.fixture
def machine(monkeypatch) -> Callable[..., None]:
    """Let JAX's backends fail with the given exceptions, or have no memory; "" stands for the choice of JAX."""

    def start(failures: dict[str, Exception | None], log=lambda: None, full=(), **variables: str) -> None:
        values = {"jax_platforms": None, "jax_platform_name": "", **variables}
        config = SimpleNamespace(values=values, update=lambda *_: None)

        def devices(backend: str | None) -> list[str]:
            name = backend or ""
            if not name:
                log()
            error = failures.get(name, None if name in ("", "cpu") else RuntimeError(UNKNOWN.format(name)))
            if error is not None:
                raise error
            return [name]

        def put(_: object, device: str) -> Any:
            if device in full:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
            return SimpleNamespace(block_until_ready=lambda: None)

        fake = SimpleNamespace(config=config, default_backend=lambda: "cpu", local_devices=devices, device_put=put)
        monkeypatch.setattr(backends, "jax", fake)

    return start


def refusal() -> str:
    with pytest.raises(InputError) as caught:
        check_backend()
    message = str(caught.value)
    assert message.endswith(".") and message.count(": ") >= 1 and ". " not in message and message.isprintable()
    return message


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        ("cuda", AssertionError(), "(no NVIDIA GPU is visible): unset JAX_PLATFORMS, or set it to cpu."),
        ("tpu", RuntimeError(f"Unable to initialize backend 'tpu': {NO_LIBTPU}{LOUD}"), f"({NO_LIBTPU}): unset"),
        (
            "cpuu",
            RuntimeError(
                "Unable to initialize backend 'cpuu': Backend 'cpuu' is not in the list of known backends: "
                f"['cpu', 'tpu'].{LOUD}"
            ),
            "(no backend 'cpuu' is installed): unset JAX_PLATFORMS, or set it to cpu.",
        ),
        (
            "cuda",
            RuntimeError(f"Unable to initialize backend 'cuda': FAILED: CUDA_ERROR_OUT_OF_MEMORY: out of memory{LOUD}"),
            "OUT_OF_MEMORY: out of memory): end other programs that use its memory, or unset JAX_PLATFORMS, or set",
        ),
        (
            "cuda",
            RuntimeError(f"Unable to initialize backend 'cuda': CUDA driver version is insufficient for it{LOUD}"),
            "): update the driver, or unset",
        ),
        (
            "tpu",
            RuntimeError(f"Unable to initialize backend 'tpu': The TPU is already in use by process 12{LOUD}"),
            "): end the process that uses it, or unset",
        ),
    ],
)
def test_a_requested_backend_that_does_not_start_is_refused_with_the_value_and_the_cure(
    value, error, expected, machine
):
    machine({"": error}, jax_platforms=value)
    message = refusal()
    assert message.startswith(f"JAX_PLATFORMS is '{value}', which does not start (") and expected in message


def test_the_backends_that_start_are_named(machine):
    machine({"": RuntimeError("Unable to initialize backend 'rocm': no"), "tpu": None}, jax_platforms="gpu")
    assert refusal().endswith("set it to tpu or cpu.")
    machine({"": RuntimeError(UNKNOWN.format("cuda")), "cpu": RuntimeError("no")}, jax_platform_name="cuda")
    expected = "JAX_PLATFORM_NAME is 'cuda', which does not start (no backend cuda is installed): unset"
    assert refusal().startswith(expected)


def test_a_gpu_that_starts_without_memory_is_refused_and_not_proposed(machine):
    machine({"cuda": None}, full=("", "cuda"))
    reason = "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"
    cure = "end other programs that use its memory, or set JAX_PLATFORMS to cpu to run without it."
    assert refusal() == f"The accelerator does not start ({reason}): {cure}"


def test_a_gpu_that_fails_is_not_replaced_by_the_cpu_silently(machine):
    failed = "Backend 'cuda' failed to initialize: {}. Available backends are ['cpu']"
    for reason, cure in [
        ("Found cuDNN version 8600, but JAX was built against version 8906, which is newer", "update the libraries"),
        ("INTERNAL: no supported devices found for platform CUDA", "end other programs that use its memory"),
        ("CUDA_ERROR_DEVICE_UNAVAILABLE", "end the process that uses it"),
        ("operation cuInit(0) failed: CUDA_ERROR_SYSTEM_NOT_READY", "check the GPU with nvidia-smi"),
    ]:
        machine({"cuda": RuntimeError(failed.format(reason))})
        message = refusal()
        assert message.startswith(f"The accelerator does not start ({reason}): {cure}")
        assert message.endswith("or set JAX_PLATFORMS to cpu to run without it.")
        machine({"cuda": RuntimeError(failed.format(reason))}, jax_platforms="cpu")
        check_backend()  # as requested
    machine({"": RuntimeError(f"Unable to initialize backend 'cuda': No visible GPU devices.{QUIET}")})
    assert refusal().startswith("The accelerator does not start (No visible GPU devices): set JAX_PLATFORMS to cpu")


def test_a_plugin_that_fails_is_reported_in_one_sentence_instead_of_its_traceback(machine, caplog):
    def failing(reason: str) -> Callable[[], None]:
        def log() -> None:
            logger = logging.getLogger(backends.LOGGER)
            try:
                raise RuntimeError(reason)
            except RuntimeError:
                logger.exception("Jax plugin configuration error: Exception when calling %s.initialize()", "cuda")
            logger.warning("another warning")

        return log

    machine({}, failing("operation cuInit(0) failed: CUDA_ERROR_UNKNOWN"))
    assert "(operation cuInit(0) failed: CUDA_ERROR_UNKNOWN): check the GPU with nvidia-smi" in refusal()
    absent = RuntimeError(
        "Unable to initialize backend 'cuda': Backend 'cuda' is not in the list of known backends: []"
    )
    machine({"": absent}, failing("CUDA driver version is insufficient"), jax_platforms="cuda")
    assert "(CUDA driver version is insufficient): update the driver" in refusal()
    for reason in ("operation cuInit(0) failed: CUDA_ERROR_NO_DEVICE", "Unknown CUDA error 303"):
        machine({}, failing(reason))
        check_backend()  # a machine without a GPU
    assert {record.getMessage() for record in caplog.records} == {"another warning"}
    assert not logging.getLogger(backends.LOGGER).filters


def test_doctor_prints_everything_else_and_exits_with_status_1(machine, capsys):
    machine({"": AssertionError()}, jax_platforms="cuda")
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["device"].startswith("none: JAX_PLATFORMS is 'cuda', which does not start") and err == ""
    assert facts["jax"] == jax.__version__ and "GiB free" in facts["memory"] and "not checked" in facts["compilation"]


@pytest.mark.slow
@pytest.mark.parametrize("value", ["cpu,cpuu", pytest.param("tpu", marks=pytest.mark.soak(long=True))])
def test_doctor_survives_a_backend_that_does_not_start_in_a_process_of_its_own(value):
    environment = {**os.environ, "JAX_PLATFORMS": value}
    command = [sys.executable, "-m", "jaxstyle", "doctor"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert re.search(rf"device +none: JAX_PLATFORMS is '{value}', .*: .*or set it to .*cpu\.\n", ended.stdout)
    assert "GiB free" in ended.stdout
