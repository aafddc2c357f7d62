"""Where compiled programs stay from one command to the next."""

import warnings

import jax

from jaxstyle import download

MOST = 2**30  # bytes; what was not used for longest goes first


def keep_programs() -> None:
    """Let jax keep what it compiles in the user's cache, unless the user has named a place; call it before any work."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    # a cache that cannot be read or written costs time, and nobody asked for it
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(download.cache() / "programs"))
    jax.config.update("jax_compilation_cache_max_size", MOST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
