"""What a GPU gets out of EVA-02 Large, change by change; and that no change alters what is computed.

    python -m benchmarks.gpu              # on one CUDA GPU, at most 9 minutes
    python -m benchmarks.gpu --equal      # on any machine, seconds

Printed: what the card copies and multiplies at best, images/s and MFU (the share of the bfloat16 peak in its data
sheet) of the training step at 224 and 448 px, in a row of changes that add up, images/s of inference, and the ten
kernels that take longest. Weights and images are random: neither changes the time. No GPU has been measured yet.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.optim import Muon
from torch import Tensor, nn

import models
from benchmarks.table import Goal, Row
from tagger.training import cost
from tagger.training.muon import orthogonal
from tagger.training.optimizer import make_optimizer
from tagger.training.settings import RecipeSettings

TIME_LIMIT = 9 * 60  # seconds; what would begin later is left out, and named
MODEL, CLASSES, BATCH_SIZE = "eva02_large", 10_861, 32
SIZES = {224: 0.75, 448: 0.75}  # image size: patch dropout of the training step, the recipe's
WARM_UP, STEPS = 3, 8
GIB = 2**30
JORDAN = [(3.4445, -4.775, 2.0315)]  # coefficients of Newton-Schulz

# --- each change of how it is computed, against what it replaces ----------------------------------------------------


def small_config() -> dict[str, Any]:
    """EVA-02 Base's form with 2 blocks and a hidden width of 170, unaligned as EVA-02 Large's 2,730 is."""
    config = models.make_config("eva02_base", 28, 7)
    config["model_args"] |= {"embed_dim": 64, "depth": 2, "num_heads": 2}
    return config


@contextlib.contextmanager
def swiglu(method: str) -> Iterator[None]:
    """Every PaddedSwiGLU built before or after computes by one of its methods, "plain" or "padded"."""
    before = models.PaddedSwiGLU.forward
    models.PaddedSwiGLU.forward = getattr(models.PaddedSwiGLU, method)  # type: ignore[method-assign]
    try:
        yield
    finally:
        models.PaddedSwiGLU.forward = before  # type: ignore[method-assign]


def timms_muon(model: nn.Module, recipe: RecipeSettings) -> torch.optim.Optimizer:
    """Muon with one matrix at a time, the parameters divided as ours divides them."""
    kept = ("params", "use_fallback", "weight_decay", "lr_scale", "betas")
    groups = make_optimizer(model, recipe).param_groups
    optimizer: torch.optim.Optimizer = Muon([{key: group[key] for key in kept} for group in groups], recipe.lr)
    return optimizer


def difference(pairs: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The largest difference, relative to the largest value of its tensor where that is above 1."""
    return max(((one - other).abs().max() / other.abs().max().clamp(min=1)).item() for one, other in pairs)


def outputs_and_gradients(method: str) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    model = models.build(small_config()).double()
    with torch.no_grad():
        for parameter in model.parameters():  # as they are initialised, all logits are about 0
            parameter.add_(torch.randn_like(parameter) * 0.1)
    with swiglu(method):
        logits = model(torch.randn(2, 3, 28, 28, dtype=torch.float64))
        logits.square().mean().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def padded_outputs() -> float:
    return difference(iter([(outputs_and_gradients("padded")[0], outputs_and_gradients("plain")[0])]))


def padded_gradients() -> float:
    padded, plain = (outputs_and_gradients(method)[1] for method in ("padded", "plain"))
    return difference(zip(padded, plain, strict=True))


def weights_after_training() -> float:
    """Of two epochs of ten steps, with Muon in batches and one by one."""
    recipe = RecipeSettings(optimizer="muon", lr=1e-2, layer_decay=0.7)
    trained = []
    for make in (make_optimizer, timms_muon):
        torch.manual_seed(0)
        model = models.build(small_config())
        optimizer = make(model, recipe)
        for step in range(20):
            random = torch.Generator().manual_seed(step % 10)
            images, targets = torch.randn(4, 3, 28, 28, generator=random), torch.rand(4, 7, generator=random).round()
            nn.functional.binary_cross_entropy_with_logits(model(images), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        trained.append([parameter.detach() for parameter in model.parameters()])
    return difference(zip(*trained, strict=True))


def padded_orthogonal() -> float:
    torch.manual_seed(0)
    matrices = [torch.randn(64, 170) for _ in range(4)]
    padded, plain = (orthogonal(matrices, 5, JORDAN, 1e-7, align_to) for align_to in (8, 1))
    return difference((one.float(), other.float()) for one, other in zip(padded, plain, strict=True))


# What is compared, how, and the largest difference that may be; each a sum in another order, or none.
EQUALITIES: dict[str, tuple[Callable[[], float], float]] = {
    "padded SwiGLU: logits, float64": (padded_outputs, 4e-15),
    "padded SwiGLU: gradients, float64": (padded_gradients, 8e-14),
    "Muon in batches: weights after 2 epochs": (weights_after_training, 1e-5),
    "Muon with aligned matrices, bfloat16": (padded_orthogonal, 2e-2),
}


def check_equal() -> dict[str, float]:
    """How much each change alters; prints a line for each."""
    differences = {}
    for what, (measure, limit) in EQUALITIES.items():
        differences[what] = found = measure()
        print(f"{what:<42} {found:9.1e}  at most {limit:.0e}  {'equal' if is_equal(what, found) else 'DIFFERENT'}")
    return differences


def is_equal(what: str, difference: float) -> bool:
    """Whether a change alters no more than it may; NaN is more."""
    return difference <= EQUALITIES[what][1]


# --- on a GPU -------------------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object], repeats: int = STEPS) -> float:
    """Of one call, on the device's clock."""
    for _ in range(WARM_UP):
        run()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()  # type: ignore[no-untyped-call, unused-ignore]
    for _ in range(repeats):
        run()
    end.record()  # type: ignore[no-untyped-call, unused-ignore]
    end.synchronize()  # type: ignore[no-untyped-call, unused-ignore]
    return float(begin.elapsed_time(end)) / 1000 / repeats


def ceilings() -> None:
    """What the card does at best, which no model gets above."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    print(f"copy                 {2 * source.nbytes / seconds(lambda: target.copy_(source)) / 1e12:8.2f} TB/s")
    for width in (8192, 2736, 2730):
        left = torch.randn(8192, 1024 if width < 8192 else 8192, device="cuda", dtype=torch.bfloat16)
        right = torch.randn(left.shape[1], width, device="cuda", dtype=torch.bfloat16)
        flops = 2 * left.numel() * width
        rate = flops / seconds(lambda left=left, right=right: left @ right, 20)  # type: ignore[misc]
        print(f"matmul to {width:<6}     {rate / 1e12:8.0f} TFLOP/s")


def training_step(image_size: int, dropout: float, *, batched: bool, compiled: bool) -> tuple[Callable[[], None], Any]:
    """A step of EVA-02 Large on random images, and the model."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        model: Any = models.build(models.make_config(MODEL, image_size, CLASSES), patch_drop_rate=dropout).train()
    recipe = RecipeSettings(optimizer="muon")
    optimizer = make_optimizer(model, recipe) if batched else timms_muon(model, recipe)
    network = torch.compile(model, dynamic=False) if compiled else model
    images = torch.randn(BATCH_SIZE, 3, image_size, image_size, device="cuda")
    targets = torch.zeros(BATCH_SIZE, CLASSES, device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(images)
        nn.functional.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, model


# Name, by which method SwiGLU computes, Muon in batches, torch.compile.
STAGES = (
    ("as before", "plain", False, False),
    ("+ padded SwiGLU", "padded", False, False),
    ("+ Muon in batches", "padded", True, False),
    ("+ compiled", "padded", True, True),
)


def measure_training(deadline: float) -> dict[tuple[int, str], float]:
    """images/s by image size and stage, of those that there was time for; prints them."""
    rates: dict[tuple[int, str], float] = {}
    device = torch.device("cuda")
    peak = cost.peak_flops(device)
    torch.set_float32_matmul_precision("high")  # as train_pytorch.py does
    for image_size, dropout in SIZES.items():
        print(f"training, {MODEL}, {image_size} px, {BATCH_SIZE} images, patch dropout {dropout:g}")
        for name, method, batched, compiled in STAGES:
            if time.monotonic() > deadline - (120 if compiled else 30):
                print(f"  {name:<20} left out: the time is over")
                continue
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            try:
                with swiglu(method):
                    step, model = training_step(image_size, dropout, batched=batched, compiled=compiled)
                    rates[image_size, name] = rate = BATCH_SIZE / seconds(step)
            except Exception as error:  # the compiler's and the driver's are of many kinds; the other rows still count
                print(f"  {name:<20} failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:80]}")
                torch.compiler.reset()
                continue
            flops = cost.training_flops(model, image_size, dropout)
            share = f"{rate * flops / peak:6.1%}" if flops and peak else "peak not known"
            memory = torch.cuda.max_memory_allocated() / GIB
            print(f"  {name:<20} {rate:8.1f} images/s   MFU {share}   {memory:.1f} GiB")
            if (image_size, name) == (448, "+ Muon in batches"):
                with swiglu(method):
                    slowest_kernels(step)
            del step, model
    return rates


def slowest_kernels(step: Callable[[], None]) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events) or 1
    for event in events[:10]:
        print(f"    {event.self_device_time_total / total:6.1%}  {event.count:5} x  {event.key[:90]}")


def measure_inference(deadline: float) -> None:
    for image_size in SIZES:
        if time.monotonic() > deadline - 20:
            print(f"inference at {image_size} px left out: the time is over")
            continue
        torch.cuda.empty_cache()
        with torch.device("cuda"):
            model = models.build(models.make_config(MODEL, image_size, CLASSES)).eval()
        images = torch.randn(BATCH_SIZE, 3, image_size, image_size, device="cuda")
        for name in ("float32", "float32, TF32", "bfloat16"):
            torch.set_float32_matmul_precision("high" if name.endswith("TF32") else "highest")
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, name == "bfloat16"):
                rate = BATCH_SIZE / seconds(lambda model=model, images=images: model(images))  # type: ignore[misc]
            print(f"inference, {image_size} px, {name:<14} {rate:8.1f} images/s")


def measure() -> dict[tuple[int, str], float]:
    """All of it on the CUDA GPU of this machine; images/s of training by image size and stage."""
    deadline = time.monotonic() + TIME_LIMIT
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    ceilings()
    rates = measure_training(deadline - 60)
    measure_inference(deadline)
    return rates


def rows(_: Path, quick: bool) -> list[Row]:
    table = [
        Row(f"{what}: difference", "", found, goal=Goal(EQUALITIES[what][1], of_ratio=False))
        for what, found in check_equal().items()
    ]
    if not torch.cuda.is_available():
        return [*table, Row(f"training {MODEL} on a GPU", note="no CUDA GPU here")]
    first, last = STAGES[0][0], STAGES[-1][0]
    rates = {} if quick else measure()
    for image_size in SIZES:
        what, ours = f"training {MODEL} at {image_size} px on a GPU", rates.get((image_size, last))
        note = "" if ours else "not measured"
        table.append(Row(what, "images/s", ours, "plain and eager", rates.get((image_size, first)), note=note))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--equal", action="store_true", help="only prove that the changes alter nothing")
    if not parser.parse_args(argv).equal:
        if not torch.cuda.is_available():
            print("no CUDA device here: nothing to measure; --equal proves the changes on any machine")
            return 0
        measure()
    return int(not all(is_equal(what, found) for what, found in check_equal().items()))


if __name__ == "__main__":
    sys.exit(main())
