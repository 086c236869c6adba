"""torch.compile with a way back: what cannot be compiled here runs as it is.

network = compiled(network, lambda network: network(images).sum().backward(), world)
"""

from collections.abc import Callable
from typing import Any

import torch

from tagger import cli
from tagger.training.distributed import World


def compiled(network: Any, trial: Callable[[Any], None], world: World) -> Any:
    """A network through torch.compile, or where that fails in any process, the network itself, and a line that says so.

    It needs a C++ compiler or Triton, and fails in many ways. Found out by a trial, so that it fails before an epoch
    begins, and no epoch's images/s hold the minutes that compiling takes.

    Args:
        trial: takes the passes that shall be compiled, without anything that waits for other processes.
    """
    # Not dynamic: an epoch's last batch, which is smaller, would make all later ones run a slower graph.
    faster = torch.compile(network, dynamic=False)
    reason = None
    try:
        trial(faster)
    except torch.OutOfMemoryError:
        pass  # compiled or not: the first step will say what fits
    except Exception as error:  # the compilers' below torch are of many kinds
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"
    if not world.any(reason is not None):
        return faster
    torch.compiler.reset()
    if world.is_first:
        cli.warn(f"torch.compile does not work here ({reason or 'in another process'}); training goes on without it")
    return network
