"""How much memory a vLLM server takes on one GPU: weights, activations, a cache in what is left of its share."""

from dataclasses import dataclass

from preflight.memory.training import ON_GPU
from preflight.models import Shape


@dataclass(frozen=True)
class Server:
    """A vLLM server on a GPU.

    Args:
        share: of the GPU's memory, or None where `cache` says how much the KV cache is (a CPU).
        b: bytes of a number. parallel: GPUs that share the model.
        longest, sequences, batched: tokens of the longest sequence, sequences at a time, tokens at a time.
        sizes: tokens of the batches that CUDA graphs are captured for; none: vLLM's own list.
        sleeps: gives its memory back between rollouts; an adapter's base then stays on the CPU.
    """

    shape: Shape
    share: float | None
    cache: float | None = None
    head: str = "lm"
    rank: int = 0
    b: int = 2
    parallel: int = 1
    longest: int = 0
    sequences: int = 256
    batched: int = 8192
    eager: bool = False
    sizes: tuple[int, ...] = ()
    sleeps: bool = True
    cuda: bool = True

    @property
    def weights(self) -> float:
        """On one GPU."""
        adapter = self.shape.adapter(self.rank) if self.rank else 0
        return (self.shape.parameters(self.head) + adapter) * self.b / self.parallel

    @property
    def activations(self) -> float:
        """vLLM measures them with a full batch before it takes the rest for the cache; the scores are fp32."""
        s = self.shape
        layer = (3 * s.intermediate * s.experts_per_token / self.parallel + 4 * s.hidden) * self.b
        scores = (
            min(self.sequences, self.batched) * s.vocab * (2 * 4 + self.b) * (self.head == "lm")
        )
        return max(self.batched * layer, scores + self.batched * s.hidden * self.b)

    @property
    def captured(self) -> int:
        """How many CUDA graphs there are: of mixed batches and of decoding, and with an adapter all of them again.

        vLLM 0.24: _set_cudagraph_sizes in config/vllm.py, initialize_cudagraph_keys in v1/cudagraph_dispatcher.py.
        """
        if self.eager or not self.cuda:
            return 0
        largest = min(2 * self.sequences, 512)
        usual = [1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)]
        sizes = self.sizes or [size for size in usual if size <= largest]
        mixed = [size for size in sizes if size <= self.batched]
        decoding = [size for size in mixed if size <= self.sequences]
        return (len(mixed) + len(decoding)) * (2 if self.rank else 1)

    @property
    def graphs(self) -> float:
        """Of CUDA graphs: a part of its share while it generates, and kept while it sleeps."""
        return self.captured * self.shape.layers * ON_GPU["graph"]

    @property
    def token(self) -> float:
        """Of the cache, for one token."""
        s = self.shape
        return 2 * s.layers * max(s.kv / self.parallel, s.head_dim) * self.b

    def room(self, gpu: float) -> float:
        """For the cache, on a GPU of so many bytes; below 0 if the share doesn't even hold the weights."""
        if self.share is None:
            return self.cache
        taken = self.weights + self.activations + self.graphs + ON_GPU["workspaces"]
        return self.share * gpu - taken

    def concurrent(self, gpu: float) -> float:
        """Sequences of full length that the cache holds at once."""
        return max(0.0, self.room(gpu)) / (self.token * max(self.longest, 1))

    def parts(self, gpu: float) -> dict[str, float]:
        """While it generates."""
        return {
            "vLLM's weights": self.weights,
            "vLLM's activations": self.activations + (ON_GPU["workspaces"] if self.cuda else 0),
            "KV cache": max(0.0, self.room(gpu)),
            "contexts": ON_GPU["server"] if self.cuda else 0,
            "graphs": self.graphs,
        }

    def asleep(self) -> dict[str, float]:
        """While others work."""
        return {"asleep": ON_GPU["asleep"], "graphs": self.graphs}
