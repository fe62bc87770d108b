"""A patch of verl 0.9.1: where new weights pass from the trainer to vLLM."""

import functools
import tempfile

SHARED = "ipc:///tmp/"


def own_socket(transfer) -> None:
    """verl/workers/rollout/vllm_rollout/vllm_rollout.py:141 and utils.py:431: the socket is /tmp/rl-colocate-zmq-JOB.

    Each Ray calls its first job 01000000, so two runs on one machine have one name: the second to bind it takes the
    socket from the first, whose vLLM may then get the other's weights. It goes into the run's own temporary folder,
    at both of its ends (bucketed_weight_transfer.py).
    """

    def in_own_folder(end) -> None:
        init = end.__init__

        @functools.wraps(init)
        def __init__(self, zmq_handle, *args, **kwargs):
            own = f"ipc://{tempfile.gettempdir()}/"
            init(self, zmq_handle.replace(SHARED, own, 1), *args, **kwargs)

        end.__init__ = __init__

    for end in (transfer.BucketedWeightSender, transfer.BucketedWeightReceiver):
        in_own_folder(end)
