"""Recipes from scratch on the same images, for about the same minutes of CPU: what does each ingredient bring?

    python benchmarks/recipes.py --dataset-root records --output-dir recipes      # about 7 CPU minutes each, one core

`records` is what create_tfrecord.py --img-size 112 --split-ratio 0.8 makes of 3,000 images with artists and characters.
Every recipe is train_pytorch.py with other flags, in a process with one thread. The naive one has its mistakes put
back in: a constant learning rate, the loss averaged over the classes, and a head bias of zero. Run it again after an
interruption: each recipe resumes.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CATEGORIES = {"9": "rating", "0": "general", "4": "character", "1": "artist"}
RARE = 10  # tags with fewer uses in training are left out

COMMON = "--model eva02_tiny --image_size 112 --device cpu --num_workers 0 --patience 0 --early_stopping_metric map"
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
    command = [sys.executable, "-c", PROCESS, name, *COMMON.split(), *flags.split()]
    command += ["--dataset_root", str(dataset_root), "--output_dir", str(folder), "--resume", "auto"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds = float(done.stdout.rsplit("cpu_seconds", 1)[1])
    row = {"recipe": name, "CPU min": f"{seconds / 60:.1f}", **measure(folder)}
    result.write_text(json.dumps(row))
    return row


def measure(folder: Path) -> dict[str, float | str]:
    """Macro-mAP over the tags with at least 10 uses in training, by category too, and top-1 accuracies."""
    with open(folder / "tag_metrics.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["count"]) >= RARE and row["AP"]]
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["mAP"]))

    def mean(chosen: Sequence[dict[str, str]]) -> str:
        return f"{sum(float(row['AP']) for row in chosen) / len(chosen):.3f}" if chosen else "-"

    by_category = {name: mean([row for row in rows if row["category"] == key]) for key, name in CATEGORIES.items()}
    top1 = {f"top-1 {name}": f"{float(best[f'top1_{name}']):.3f}" for name in ("artist", "rating")}
    return {"epoch": best["epoch"], "mAP": mean(rows), **by_category, **top1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-root", type=Path, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="recipes at a time, one core each (default: %(default)s)")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(train, name, flags, arguments.dataset_root, arguments.output_dir / name)
            for name, flags in RECIPES.items()
        ]
        rows = [job.result() for job in jobs]
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
