"""JAX's folder of compiled programs, from which a start after the first takes them: what it gave a start.

    with CacheUse() as use:
        step = lowered.compile()
    print(use.summary())       # 1 of 1 programs from /home/me/.cache/jaxbio/compiled

Where the folder lies is set before JAX is imported (launch/environment.py).
"""

from types import TracebackType

import jax

from jaxbio.training.peers import Peers

_ASKED = "/jax/compilation_cache/compile_requests_use_cache"
_FOUND = "/jax/compilation_cache/cache_hits"


class CacheUse:
    """Counts, while it is open, the programs that were `asked` of the cache and those that were `found` there."""

    def __init__(self) -> None:
        self.asked = self.found = 0

    def __enter__(self) -> "CacheUse":
        jax.monitoring.register_event_listener(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        jax.monitoring.unregister_event_listener(self._hear)

    def summary(self) -> str:
        """Return how many programs came from where, in words."""
        folder = jax.config.values["jax_compilation_cache_dir"]
        return f"{self.found} of {self.asked} programs from {folder}" if folder else "no cache of compiled programs"

    def _hear(self, event: str, **_: str | int | float) -> None:
        self.asked += event == _ASKED
        self.found += event == _FOUND


def use_cache_together(peers: Peers) -> None:
    """Have no cache where several processes train on CPUs; before the first program is compiled.

    Only process 0 writes it, so at the next start it takes its program from there while the others compile theirs.
    On a CPU the two run their collectives in different orders, and all wait for ever (seen with jaxlib 0.10.2).
    """
    if not peers.alone and jax.default_backend() == "cpu":
        jax.config.update("jax_compilation_cache_dir", None)
