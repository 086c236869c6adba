"""A head on a frozen backbone: what is trained is some of its rows, on features that were computed once.

frozen = FrozenHead(model, rows)     # frozen(features) are the logits of all labels
model = frozen.whole()               # the model with what its head has learnt
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tagger.formats.vocabulary import Vocabulary


class FrozenHead(nn.Module):
    """The head of a model, of which some rows learn and the others stay bit for bit as they are.

    Its state dict has the rows that learn and nothing else: a state of a run is small.

    Args:
        model: with a linear head of C rows.
        rows: the labels that learn, (R,) int64.
    """

    rows: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, model: nn.Module, rows: Tensor) -> None:
        super().__init__()
        whole_head = model.get_classifier()  # type: ignore[operator]
        self._model = (model,)  # in a tuple, for its parameters are not among those that learn
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("weight", whole_head.weight.detach().clone(), persistent=False)
        self.register_buffer("bias", whole_head.bias.detach().clone(), persistent=False)
        self.head = nn.Linear(self.weight.shape[1], len(rows))
        self.start_from(self.weight[rows], self.bias[rows])

    def start_from(self, weight: Tensor, bias: Tensor) -> None:
        """Set the rows that learn: (R, D) and (R,)."""
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def get_classifier(self) -> nn.Linear:
        return self.head

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, D) to the logits of all labels, (N, C)."""
        logits = nn.functional.linear(features, self.weight, self.bias)
        return logits.index_copy(1, self.rows, self.head(features).to(logits.dtype))

    def whole(self, learnt: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The model, with these rows in its head, or with those of now.

        Args:
            learnt: an earlier state dict of this one.
        """
        learnt = learnt or self.state_dict()
        (model,) = self._model
        whole_head = model.get_classifier()  # type: ignore[operator]
        with torch.no_grad():
            for part in ("weight", "bias"):
                getattr(whole_head, part)[self.rows.cpu()] = learnt[f"head.{part}"].to(whole_head.weight)
        return model


def new_rows(vocabulary: Vocabulary, known: Vocabulary | None) -> Tensor:
    """The labels that a model does not know, (R,) int64; all where it knows none."""
    names = set(known.names) if known else set()
    return torch.tensor([row for row, name in enumerate(vocabulary.names) if name not in names], dtype=torch.int64)


def unfreeze_last(model: nn.Module, blocks: int) -> None:
    """Let the head, the norms before it and the last blocks learn, and nothing else.

    Raises:
        ValueError: the model has no list of so many blocks.
    """
    layers = getattr(model, "blocks", None)
    if not isinstance(layers, (nn.ModuleList, nn.Sequential)) or len(layers) < blocks:
        raise ValueError(f"it has no {blocks} blocks")
    model.requires_grad_(False)
    last = [*layers[len(layers) - blocks :], model.get_classifier()]  # type: ignore[operator]
    last += [module for name in ("norm", "fc_norm") if isinstance(module := getattr(model, name, None), nn.Module)]
    for module in last:
        module.requires_grad_(True)
