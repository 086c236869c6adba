"""A list divided among the processes that torchrun started, and their results brought together in its order.

torchrun --nproc_per_node 2 wdv3_pytorch.py --image_file pictures --model_path checkpoints --output_format jsonl
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain, zip_longest
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
SHARE = 256  # items of a process between two exchanges: 11 MB of logits


def split(
    items: Sequence[Item], work: Callable[[Iterable[Item]], Iterator[Answer]], share: int = SHARE
) -> Iterator[Answer]:
    """`work(items)`, done by all processes. The first yields all answers in the items' order, the others none.

    Args:
        work: an answer for each item, in order; called anew for every `share` items.
    """
    if WORLD_SIZE == 1:
        yield from work(items)
        return
    import torch.distributed as dist

    # gloo, for what is exchanged lies in memory. A process may wait long for one with larger images.
    dist.init_process_group("gloo", timeout=timedelta(days=1))
    try:
        for start in range(0, len(items), share * WORLD_SIZE):
            mine = list(work(items[start + RANK : start + share * WORLD_SIZE : WORLD_SIZE]))
            gathered: list[list[Answer]] | None = [[] for _ in range(WORLD_SIZE)] if RANK == 0 else None
            dist.gather_object(mine, gathered)
            if gathered is not None:
                # Only the last share is uneven, and there the later processes have one less.
                rows = zip_longest(*([(answer,) for answer in part] for part in gathered), fillvalue=())
                yield from chain.from_iterable(chain.from_iterable(row) for row in rows)
    finally:
        dist.destroy_process_group()
