"""`jaxstyle networks` and `jaxstyle doctor`: installed networks, and the machine for bug reports."""

import os
import platform
from dataclasses import dataclass

from jaxstyle.cli.signals import check
from jaxstyle.errors import InputError

PACKAGES = (
    "jaxstyle jax jaxlib flax optax numpy pillow imagecodecs tifffile h5py filelock psutil pooch tyro rich"
).split()


@dataclass(frozen=True)
class Networks:
    """List the installed networks, in the order of preference of --network auto."""

    def run(self) -> int:
        """Print the list and return the exit status."""
        from jaxstyle.networks import pretrained, weights_io

        for weights in pretrained.installed():
            check()
            print(f"{weights.network:8} {weights.origin}")
            if weights.path:
                weights_io.widths(weights.path)  # raises for a missing or damaged file
                print(f"{'':8} sha256 {weights.sha256}")
                for key, text in weights_io.provenance(weights.path).items():
                    print(f"{'':8} {key} {text}")
        return 0


@dataclass(frozen=True)
class Doctor:
    """Print versions, devices, memory and folders, and check the cache of compiled programs."""

    def run(self) -> int:
        """Print the report and return the exit status: 1 if the backend of JAX does not start."""
        from importlib import metadata

        import psutil

        from jaxstyle.networks import pretrained
        from jaxstyle.runtime.compile_cache import cache_works
        from jaxstyle.runtime.memory import memory_left

        print(f"python       {platform.python_version()}, {platform.platform()}")
        for package in PACKAGES:
            print(f"{package:16} {metadata.version(package)}")
        starts = _print_devices()
        print("measured     CPUs only; jaxstyle has not been measured on a GPU or TPU")
        print(f"processors   {os.cpu_count()}")
        memory = psutil.virtual_memory()
        free = min(memory.available, memory_left())  # a container may have less than the machine
        print(f"memory       {_gib(memory.total)} in all, {_gib(free)} free")
        print(f"weights      $JAXSTYLE_WEIGHTS is {os.environ.get('JAXSTYLE_WEIGHTS', 'not set')}")
        print(f"cache        {pretrained.cache()}")
        if starts:
            works = "works" if cache_works() else "does not work here: every command recompiles"
            print(f"compilation  the cache of compiled programs {works}")
        else:
            print("compilation  the cache of compiled programs is not checked without a device")
        return 0 if starts else 1


def _print_devices() -> bool:
    """Print the devices, or why the backend does not start; return whether it starts."""
    import jax

    from jaxstyle.runtime.backends import check_backend

    try:
        check_backend()
    except InputError as error:
        print(f"device       none: {error}")
        return False
    for device in jax.devices():
        limit = (device.memory_stats() or {}).get("bytes_limit")
        print(f"device       {device.device_kind} ({device.platform}){f', {_gib(limit)}' if limit else ''}")
    return True


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
