"""The pause before another attempt: random, up to twice as long each time ("full jitter"), so that many
that failed together do not come back together.
"""

import asyncio
import math
import random
import time

MAX_PAUSE_S = 60  # of the back-off; a server may ask for more


async def pause(
    attempt: int, first_s: float, wish_s: float = 0.0, deadline: float = math.inf
) -> bool:
    """Sleep before the next attempt. False, at once, if that would end after the deadline.

    Args:
        attempt: how many were made, from 1.
        first_s: the longest pause after the first one; the longest doubles each time.
        wish_s: what the server asked for, on top (Retry-After).
        deadline: by time.monotonic().
    """
    longest = min(first_s * 2 ** min(attempt - 1, 30), MAX_PAUSE_S)
    seconds = wish_s + random.uniform(0, longest)
    if time.monotonic() + seconds >= deadline:
        return False
    await asyncio.sleep(seconds)
    return True
