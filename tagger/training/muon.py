"""Muon that makes matrices of one shape orthogonal in one go: what a step costs a GPU is its launches, not its sums.

optimizer = BatchedMuon([{"params": matrices, "use_fallback": False}, {"params": rest, "use_fallback": True}], lr=1e-3)

One Newton-Schulz iteration a matrix is some 4,300 launches a step for EVA-02 Large, whose 168 matrices have two shapes,
up to transposition. The updates are those of timm's Muon, bit for bit on a CPU, and so is the state that is kept.
Several processes share the matrices out among them, and send each other the results.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from timm.optim import Muon
from timm.optim.muon import _COEFFICIENTS as PRESETS
from timm.optim.muon import get_lr_scale, resolve_ns_coefficients, zeropower_via_newtonschulz
from torch import Tensor
from torch.optim.adamw import adamw

ALIGNED_TO = 8  # numbers of a matrix row; 16 bytes of bfloat16, below which a GPU's fast kernels refuse a matrix
BATCH_NUMBERS = 2**26  # of the matrices in one go: 256 MiB of float32, and about twice that while they are computed


class BatchedMuon(Muon):  # type: ignore[misc]
    """timm's Muon for groups with `use_fallback` False, AdamW for those with True; each group must have the key.

    A state dict of timm's Muon with the same groups goes on.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """See torch.optim.Optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        waiting: dict[tuple[Any, ...], list[tuple[Tensor, dict[str, Any]]]] = defaultdict(list)
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not learning:
                continue
            if group["use_fallback"]:
                self._adamw(group, learning)
                continue
            self._remember(group, learning)
            for parameter in learning:
                shape = sorted(_as_matrix(parameter).shape)
                waiting[(*shape, parameter.device, parameter.dtype, group["ns_steps"])].append((parameter, group))
        for entries in waiting.values():
            for batch in _batches(entries):
                self._move(batch)
        return loss

    def _remember(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Decay the weights and take the gradients into the momentum."""
        for parameter in parameters:
            state = self.state[parameter]
            state["use_muon"] = True  # as timm's does
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(momenta, _gradients(parameters), 1.0 - group["momentum"])

    def _move(self, batch: Sequence[tuple[Tensor, dict[str, Any]]]) -> None:
        """Step along the orthogonal matrices that are nearest to the momenta; one shape, up to transposition."""
        first = batch[0][1]
        momenta = [_as_matrix(self.state[parameter]["momentum_buffer"]) for parameter, _ in batch]
        align_to = ALIGNED_TO if momenta[0].is_cuda else 1
        coefficients = resolve_ns_coefficients(first["ns_coefficients"], PRESETS)
        updates = orthogonal(momenta, first["ns_steps"], coefficients, first["eps"], align_to, _processes(momenta[0]))
        for (parameter, group), update in zip(batch, updates, strict=True):
            scale = get_lr_scale(update.shape, group["adjust_lr_fn"])
            parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            state["use_muon"] = False
            if "step" not in state:
                state["step"] = torch.tensor(0.0)  # on the CPU, where reading it waits for nothing
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        kept = {
            key: [self.state[parameter][key] for parameter in parameters] for key in ("exp_avg", "exp_avg_sq", "step")
        }
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            _gradients(parameters),
            kept["exp_avg"],
            kept["exp_avg_sq"],
            [],  # the largest second moments: of AMSGrad alone
            kept["step"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(
    matrices: Sequence[Tensor],
    steps: int,
    coefficients: list[tuple[float, float, float]],
    eps: float,
    align_to: int = 1,
    processes: int = 1,
) -> list[Tensor]:
    """The orthogonal matrices nearest to some, by Newton-Schulz iterations in bfloat16 (Jordan 2024).

    Args:
        matrices: (m, n) or (n, m) each, with one m and n.
        align_to: zeros are added to the longer side up to a multiple of it, and cut off again. They change no sum.
        processes: of the group, each of which has the same matrices and makes a share of them orthogonal.
    """
    tall = [matrix.shape[0] > matrix.shape[1] for matrix in matrices]
    wide = [matrix.mT if turned else matrix for matrix, turned in zip(matrices, tall, strict=True)]

    def iterate(some: Sequence[Tensor]) -> Tensor:
        width = some[0].shape[-1]
        stacked = torch.stack(some)  # type: ignore[arg-type]
        if zeros := -width % align_to:
            stacked = torch.nn.functional.pad(stacked, (0, zeros))
        return zeropower_via_newtonschulz(stacked, steps, coefficients, eps)[..., :width]  # type: ignore[no-any-return]

    found = iterate(wide) if processes == 1 else _shared_out(wide, iterate, processes)
    return [matrix.mT if turned else matrix for matrix, turned in zip(found, tall, strict=True)]


def _shared_out(matrices: Sequence[Tensor], compute: Callable[[Sequence[Tensor]], Tensor], processes: int) -> Tensor:
    """What `compute` makes of all matrices, (N, m, n) bfloat16, of which each process computes a share."""
    share = -(-len(matrices) // processes)
    first = dist.get_rank() * share
    own = torch.zeros(share, *matrices[0].shape, dtype=torch.bfloat16, device=matrices[0].device)
    if mine := matrices[first : first + share]:  # the last processes may have none
        own[: len(mine)] = compute(mine)
    found = own.new_empty(processes * share, *own.shape[1:])
    dist.all_gather_into_tensor(found, own)
    return found[: len(matrices)]


def _processes(tensor: Tensor) -> int:
    """How many processes step together. None but this one where shapes alone are worked out."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not tensor.is_meta else 1


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _as_matrix(tensor: Tensor) -> Tensor:
    """A convolution's kernel (out, in, …) as (out, in * …)."""
    return tensor.flatten(1)


def _batches(entries: list[tuple[Tensor, dict[str, Any]]]) -> Iterator[list[tuple[Tensor, dict[str, Any]]]]:
    """Entries of one shape in pieces of at most BATCH_NUMBERS for each process."""
    size = max(1, BATCH_NUMBERS // entries[0][0].numel()) * _processes(entries[0][0])
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
