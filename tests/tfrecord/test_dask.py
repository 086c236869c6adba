"""create_tfrecord.py --dask, on a cluster of two worker processes on this machine.

python -m pytest tests/tfrecord/test_dask.py
"""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import ROOT, error_line, left_out, run_script, tree, write_csv, write_pair

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
    with tarfile.open(tmp_path / "dataset" / "0001.tar", "w") as tar:
        for path in sorted((tmp_path / "dataset").glob("1?.*")):
            tar.add(path, path.name)
            path.unlink()
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


def other_version(folder: Path) -> Path:
    """A copy of the toolkit in which submodules differ: pictures stand on their heads, a function has another name."""
    shutil.copytree(ROOT / "tagger", folder / "tagger", ignore=shutil.ignore_patterns("__pycache__"))
    writer = folder / "tagger" / "tfrecord" / "writer.py"
    text = writer.read_text(encoding="utf-8").replace("encode_jpeg(picture,", "encode_jpeg(picture.rotate(180),")
    writer.write_text(text.replace("write_shard_in_one_process", "write_shard_alone"), encoding="utf-8")
    text = (ROOT / "create_tfrecord.py").read_text(encoding="utf-8")
    script = folder / "create_tfrecord.py"
    script.write_text(text.replace("write_shard_in_one_process", "write_shard_alone"), encoding="utf-8")
    return script


def test_a_cluster_that_served_another_version_works_with_this_one(tmp_path: Path, scheduler: str) -> None:
    for number in range(6):
        image = write_pair(tmp_path / "dataset", f"{number}.png", ["general"])
        Image.linear_gradient("L").rotate(10 * number).save(image)
    other = other_version(tmp_path / "other")
    written = {}
    runs = (("other", other, True), ("this", "create_tfrecord.py", True), ("local", "create_tfrecord.py", False))
    for name, script, on_cluster in runs:
        csv_path = write_csv(tmp_path / f"{name}.csv", ["general,9"])
        flags = ["--tags-csv", csv_path, "--output-path", f"records-{name}", "--img-size", 28, "--num-shards", 2]
        done = run_script(str(script), *flags, *(["--dask", scheduler] if on_cluster else []), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        written[name] = [path.read_bytes() for path in sorted((tmp_path / f"records-{name}").glob("*/*.tfrecord"))]
    assert written["other"] != written["local"]  # the other version was at work
    assert written["this"] == written["local"]


def test_the_dataset_must_be_there(tmp_path: Path, scheduler: str) -> None:
    done = run_script("create_tfrecord.py", "--dask", scheduler, cwd=tmp_path)
    assert done.returncode == 2 and "dataset: no such folder" in error_line(done.stderr)
