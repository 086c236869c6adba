"""create_tfrecord.py --dask, on a cluster of two worker processes on this machine.

python -m pytest tests/tfrecord/test_dask.py
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import error_line, left_out, run_script, tree, write_csv, write_pair

pytest.importorskip("distributed", reason="an optional requirement; pip install distributed")

CLUSTER = """
from distributed import LocalCluster

if __name__ == "__main__":
    where = {"host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **where) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, which know nothing of the toolkit."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "cluster.py").write_text(CLUSTER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "cluster.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        address = process.stdout.readline().strip()
        assert address.startswith("tcp://")
        yield address
        process.stdin.write("\n")


def test_a_cluster_writes_the_same_bytes(tmp_path: Path, scheduler: str) -> None:
    for number in range(20):
        write_pair(tmp_path / "dataset", f"{number}.png", ["general", f"tag{number % 3}"], grey=number)
    truncated = tmp_path / "dataset" / "3.png"
    truncated.write_bytes(truncated.read_bytes()[:60])
    for name, flags in (("local", []), ("dask", ["--dask", scheduler])):
        csv_path = write_csv(tmp_path / f"{name}.csv", ["general,9"])
        where = ["--tags-csv", csv_path, "--output-path", name]
        done = run_script("create_tfrecord.py", *where, "--img-size", 28, "--num-shards", 3, *flags, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert len(left_out(done.stderr)) == 1
    files = [name for name in tree(tmp_path / "local") if name != ".plan.sqlite"]
    assert len([name for name in files if name.endswith(".tfrecord")]) == 4
    assert [name for name in tree(tmp_path / "dask") if name != ".plan.sqlite"] == files
    for name in files:
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name


def test_the_dataset_must_be_there(tmp_path: Path, scheduler: str) -> None:
    done = run_script("create_tfrecord.py", "--dask", scheduler, cwd=tmp_path)
    assert done.returncode == 2 and "dataset: no such folder" in error_line(done.stderr)
