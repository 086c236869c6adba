"""One process or many: what torchrun tells each of them, and sums over all. Without torchrun nothing is started.

torchrun --nproc_per_node 2 train_pytorch.py --dataset_root ./output-datasets
"""

import os
from dataclasses import dataclass
from typing import TextIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from tagger.device import pick_device
from tagger.files import UserError


@dataclass(frozen=True)
class World:
    """The processes of a run and this one's place among them. Leaving its `with` block leaves their group.

    Attributes:
        rank: 0..size-1 over all machines; rank 0 writes the files.
        size: the number of processes.
        device: what this process computes on.
    """

    rank: int
    size: int
    device: torch.device

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def print(self, text: str, file: TextIO | None = None) -> None:
        """Print a line once for all processes, to stdout unless a file is named."""
        if self.is_first:
            print(text, file=file, flush=True)  # a log file shows an epoch when it is over

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one process at least. Waits for the others and for the device."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag), device=self.device)
        self.sum(votes)
        return bool(votes.item())

    def agree(self, number: int) -> bool:
        """Whether all processes have the same number."""
        if self.size == 1:
            return True
        # One reduction finds both ends: the lowest number is the highest of the negated ones.
        both = torch.tensor([number, -number], device=self.device)
        dist.all_reduce(both, dist.ReduceOp.MAX)
        highest, lowest = both[0].item(), -both[1].item()
        return highest == lowest

    def wait(self) -> None:
        """Return when all processes have called it."""
        if self.size > 1:
            dist.barrier()


def shared(model: nn.Module, device: torch.device, bf16_gradients: bool) -> DistributedDataParallel:
    """A model whose gradients are averaged over all processes.

    Args:
        bf16_gradients: they travel as bfloat16: half of the bytes, and 8 bits of the mantissa instead of 24.
    """
    # EVA-02's buffers are positions and never change: to send them before every forward pass would only take time.
    # Running means change.
    changing = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    ids = [device] if device.type == "cuda" else None
    network = DistributedDataParallel(model, ids, forward_sync_buffers=changing)
    if bf16_gradients:
        network.register_comm_hook(None, bf16_compress_hook)
    return network


def join(device_name: str, hint: str) -> World:
    """Join the processes that torchrun started: NCCL between GPUs, gloo between CPUs.

    Args:
        device_name, hint: see `pick_device`.

    Raises:
        UserError: see `pick_device`, or a device that does not work in several processes.
    """
    device = pick_device(device_name, hint)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(0, 1, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)  # or a barrier guesses the device, and may hang
    elif device.type == "cpu":
        dist.init_process_group("gloo")
    else:
        raise UserError(f"device {device}: only cuda and cpu work in several processes; start it without torchrun")
    return World(dist.get_rank(), size, device)
