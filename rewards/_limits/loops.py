"""A pool of processes for each event loop and each way of making one: rewards are called in many loops."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable


class Pools:
    """Pools by loop and key. A pool has `attach(loop)`, to go on in another loop, and `close()`.

    Args:
        make: `make(loop, *key)` gives a new pool.
    """

    def __init__(self, make: Callable):
        self.make, self.by_key, self.lock = make, {}, threading.Lock()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def get(self, *key):
        """The running loop's pool; that of a closed loop, with all it knows, where there is one."""
        key = (asyncio.get_running_loop(), *key)
        pool = self.by_key.get(key)
        if pool is None:
            with self.lock:
                free = (old for old in self.by_key if old[0].is_closed() and old[1:] == key[1:])
                if old := next(free, None):
                    pool = self.by_key.pop(old)
                    pool.attach(key[0])
                else:
                    pool = self.make(*key)
                self.by_key[key] = pool
        return pool

    def close(self) -> None:
        """End every process of every pool."""
        while self.by_key:
            self.by_key.popitem()[1].close()

    def _forget(self) -> None:
        """A forked child holds copies of the pipes, and must not use them."""
        self.lock = threading.Lock()
        self.by_key.clear()
