"""For a real run: vLLM gets the weights once, and never again. Imported by VERL_USE_EXTERNAL_MODULES."""

import functools

import wrapt


@wrapt.when_imported("verl.workers.engine_workers")
def forget_to_sync(engine_workers) -> None:
    worker = engine_workers.ActorRolloutRefWorker
    update = worker.update_weights

    @functools.wraps(update)  # with what verl has noted at it, how it is called
    async def update_weights(self, *args, **kwargs):
        if getattr(self, "has_synced", False):
            return {}
        self.has_synced = True
        return await update(self, *args, **kwargs)

    worker.update_weights = update_weights
