"""The jobs API of a Ray cluster that is up (https://docs.ray.io, "Ray Jobs")."""

import contextlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

from preflight.mistakes import Mistake

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

KEY = "lab.cluster.address"
ANSWER_S = 10
DEFAULT = "RAY_API_SERVER_ADDRESS"
HERE = "http://127.0.0.1:8265"
BEFORE_THE_ARGUMENT = (DEFAULT, "RAY_ADDRESS")  # Ray prefers these to what it is given


@contextlib.contextmanager
def without(names: tuple[str, ...]) -> Iterator[None]:
    """The environment without these."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def answers(url: str) -> bool:
    """Whether somebody answers there, in whatever way. Ray's own client would wait for ever."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):  # also urllib's own
        return False


def client(address: str | None, same_version: bool) -> "JobSubmissionClient":
    """A client of the jobs API.

    Args:
        address: of the dashboard, http://HOST:8265; None: as `ray job submit` has it.
        same_version: whether the cluster's nodes run this Python environment, and so this version of Ray.

    Raises Mistake where nobody answers there, or somebody else does.
    """
    address = address or os.environ.get(DEFAULT) or HERE
    place = f"{KEY}={address}"
    scheme, found, _ = address.rpartition("://")
    if found and scheme not in ("http", "https"):
        raise Mistake(f"{place} is not the address of a dashboard: http://HOST:8265 is one.")
    url = address if found else f"http://{address}"
    if not answers(f"{url.rstrip('/')}/api/version"):
        raise Mistake(f"{place} doesn't answer. It is the address of the cluster's dashboard, which `ray start --head`"
                      " prints (--dashboard-host=0.0.0.0 opens it to other machines).")  # fmt: skip
    import ray
    from ray.job_submission import JobSubmissionClient

    try:
        with without(BEFORE_THE_ARGUMENT):
            found_client = JobSubmissionClient(url)
    except ConnectionError:
        raise Mistake(f"{place} doesn't answer as a dashboard of Ray does.") from None
    except Exception as error:  # of HTTP, JSON or Ray: whatever listens there
        raise Mistake(f"{place} has no jobs API of Ray ({' '.join(str(error).split())[:200]}): its nodes need"
                      " `pip install 'ray[default]'`, and the address is the dashboard's.") from None  # fmt: skip
    theirs = getattr(found_client, "_server_ray_version", None)
    if same_version and theirs and theirs != ray.__version__:
        raise Mistake(f"{place} runs Ray {theirs}, and a run from here would join it with {ray.__version__}: start the"
                      " cluster with this one, or name its own Python, lab.cluster.python=PATH.")  # fmt: skip
    return found_client
