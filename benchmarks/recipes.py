"""Recipes from scratch on the same images, for about the same minutes of CPU: what does each ingredient bring?

    python -m benchmarks.recipes                                  # about 7 CPU minutes each, one core
    python -m benchmarks.recipes --dataset-root records           # records of your own, --img-size 112

Without --dataset-root it draws 3,000 portraits with artists and characters and makes records of them, a fifth of them
for validation; the READMEs' table is of as many images of emoji, with six families of them as artists. Every recipe is
train_pytorch.py with other flags, in a process with one thread. The naive one has its mistakes put back in: a constant
learning rate, the loss averaged over the classes, and a head bias of zero. Run it again after an interruption: each
recipe resumes.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.corpus import records
from benchmarks.processes import python, require
from benchmarks.table import Row, cores

PICTURES, SIZE, SPLIT_RATIO = 3000, 112, 0.8
CATEGORIES = {"9": "rating", "0": "general", "4": "character", "1": "artist"}
RARE = 10  # tags with fewer uses in training are left out

COMMON = f"--model eva02_tiny --image_size {SIZE} --device cpu --num_workers 0 --patience 0 --early_stopping_metric map"
ADAMW = "--optimizer adamw --layer_decay 1"
# From the naive one to the defaults, an ingredient a line. The epochs are those of about 7 minutes on one core.
RECIPES = {
    "naive": f"{ADAMW} --patch_dropout 0 --epochs 6 --batch_size 32 --lr 1e-3",
    "plain": f"{ADAMW} --patch_dropout 0 --epochs 6 --batch_size 32 --lr 5e-4",
    "+ patch dropout": f"{ADAMW} --epochs 15 --batch_size 32 --lr 1e-3",
    "+ Muon, the defaults": "--epochs 12 --batch_size 32 --lr 4e-3",
}

# Undoes what the trainer does against the three mistakes, then trains. Prints the CPU seconds of this process.
PROCESS = """
import resource, sys
import train_pytorch
from tagger.training import loss, optimizer, trainer
if sys.argv[1] == "naive":
    class Constant:
        def __init__(self, *_): pass
        def step_update(self, _): pass
    inner = loss.TaggingLoss.forward
    loss.TaggingLoss.forward = lambda self, logits, targets: inner(self, logits, targets) / logits.shape[1]
    trainer.warmup_and_cosine = Constant
    train_pytorch.start_head_at_log_odds = lambda model, frequency: model.head.bias.detach().zero_()
if sys.argv[1] in ("naive", "plain"):
    optimizer.ADAMW_BETAS = (0.9, 0.999)
code = train_pytorch.main(sys.argv[2:])
print("cpu_seconds", resource.getrusage(resource.RUSAGE_SELF).ru_utime)
sys.exit(code)
"""


def train(name: str, flags: str, dataset_root: Path, folder: Path) -> dict[str, float | str]:
    """Train one recipe, or take what an earlier run of it left; its row of the table."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    given = ["--dataset_root", dataset_root, "--output_dir", folder, "--resume", "auto"]
    output = python(PROCESS, name, *COMMON.split(), *flags.split(), *given, environment={"OMP_NUM_THREADS": "1"}).output
    minutes = float(output.rsplit("cpu_seconds", 1)[1]) / 60
    row = {"recipe": name, "CPU min": f"{minutes:.1f}", **measure(folder)}
    result.write_text(json.dumps(row))
    return row


def train_all(
    recipes: Mapping[str, str], dataset_root: Path | None, folder: Path, jobs: int, pictures: int = PICTURES
) -> list[dict[str, float | str]]:
    """Train recipes, `jobs` of them at a time, on records that are drawn where none are named; prints the table."""
    require("torch", "timm")
    root = dataset_root or records(folder, pictures, SIZE, SPLIT_RATIO)
    with ThreadPoolExecutor(jobs) as pool:
        done = [pool.submit(train, name, flags, root, folder / name) for name, flags in recipes.items()]
        table = [job.result() for job in done]
    print("| " + " | ".join(table[0]) + " |\n" + "|---" * len(table[0]) + "|")
    for row in table:
        print("| " + " | ".join(map(str, row.values())) + " |")
    return table


def measure(folder: Path) -> dict[str, float | str]:
    """Macro-mAP over the tags with at least RARE uses in training, by category too, and top-1 accuracies."""
    with open(folder / "tag_metrics.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["count"]) >= RARE and row["AP"]]
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["mAP"]))

    def mean(chosen: Sequence[dict[str, str]]) -> str:
        return f"{sum(float(row['AP']) for row in chosen) / len(chosen):.3f}" if chosen else "-"

    by_category = {name: mean([row for row in rows if row["category"] == key]) for key, name in CATEGORIES.items()}
    top1 = {f"top-1 {name}": f"{float(best[f'top1_{name}']):.3f}" for name in ("artist", "rating")}
    return {"epoch": best["epoch"], "mAP": mean(rows), **by_category, **top1}


def rows(folder: Path, quick: bool) -> list[Row]:
    recipes = dict(RECIPES)
    if quick:
        recipes = {name: f"{flags} --image_size 28 --epochs 1" for name, flags in list(recipes.items())[-1:]}
    table = train_all(recipes, None, folder / "recipes", cores(), 60 if quick else PICTURES)
    found = {str(row["recipe"]): number(row["mAP"]) for row in table}
    first = next(iter(found))
    others = {name: (first, found[first]) for name in found if name != first}
    return [
        Row(f"from scratch, 7 minutes of CPU: {name}", "mAP", value, *others.get(name, ()))
        for name, value in found.items()
    ]


def number(text: float | str) -> float | None:
    """A figure of the table; None where no tag has uses enough."""
    return None if text == "-" else float(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-root", type=Path, help="records in one shard (default: draws its own)")
    parser.add_argument("--output-dir", type=Path, default=Path("recipes-benchmark"), help="(default: ./%(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=cores(), help="recipes at a time, one core each (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    train_all(RECIPES, arguments.dataset_root, arguments.output_dir, arguments.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
