"""What makes a GPU faster changes nothing that is computed: the checks of benchmarks/gpu.py, which need no GPU.

python -m pytest tests/training/test_gpu_changes.py
"""

import pytest
import torch

from benchmarks import gpu


def test_no_change_alters_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--equal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gpu.EQUALITIES) and all(line.endswith(" equal") for line in lines)


def test_a_change_that_alters_something_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(self: gpu.models.PaddedSwiGLU, tokens: torch.Tensor) -> torch.Tensor:
        return self.plain(tokens) * (1 + 1e-12)

    monkeypatch.setattr(gpu.models.PaddedSwiGLU, "padded", wrong)
    assert gpu.main(["--equal"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure for 9 minutes")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 0
    assert "no CUDA device" in capsys.readouterr().out
