"""A list divided among the processes that torchrun started, and their results brought together in its order.

torchrun --nproc_per_node 2 wdv3_pytorch.py --image_file pictures --model_path checkpoints --output_format jsonl
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

SHARE = 256  # items of a process between two exchanges: 11 MB of logits


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that work together.

    Attributes:
        rank: its number, 0..world_size - 1; the process of rank 0 gets all results.
        world_size: how many processes there are; 1 without torchrun.
    """

    rank: int = 0
    world_size: int = 1


def process_group() -> ProcessGroup:
    """What torchrun says of this process in its environment."""
    return ProcessGroup(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def split(
    items: Sequence[Item], work: Callable[[Iterable[Item]], Iterator[Answer]], group: ProcessGroup, share: int = SHARE
) -> Iterator[Answer]:
    """`work(items)`, done by all processes. The first yields all answers in the items' order, the others none.

    Args:
        work: gives an answer for each item, in order; called anew for every `share` items.
        share: items that a process works on before the answers are exchanged.
    """
    rank, world_size = group.rank, group.world_size
    if world_size == 1:
        yield from work(items)
        return
    import torch.distributed as dist

    # gloo, because what is exchanged lies in memory and not on a GPU. A process may wait for long for another whose
    # images take longer, so the usual timeout of half an hour would end a healthy run.
    dist.init_process_group("gloo", timeout=timedelta(days=1))
    try:
        for start in range(0, len(items), share * world_size):
            # Every world_size-th item: neighbours in a folder are often equally large, so all have equally much to do.
            mine = list(work(items[start + rank : start + share * world_size : world_size]))
            gathered: list[list[Answer]] | None = [[] for _ in range(world_size)] if rank == 0 else None
            dist.gather_object(mine, gathered)
            if gathered is not None:
                # Only the last share is uneven, and there the later processes have one less.
                rows = zip_longest(*([(answer,) for answer in part] for part in gathered), fillvalue=())
                yield from chain.from_iterable(chain.from_iterable(row) for row in rows)
    finally:
        dist.destroy_process_group()
