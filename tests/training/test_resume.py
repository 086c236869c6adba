"""A run that is killed, stopped or unplugged goes on bit for bit.

python -m pytest tests/training/test_resume.py
"""

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train_pytorch
from tagger.files import UserError, locked_folder
from tagger.training import checkpoints
from tests.helpers import ROOT, error_line, free_port, run_script

FLAGS = [
    *("--model", "eva02_tiny", "--image_size", "28", "--batch_size", "4", "--epochs", "3", "--device", "cpu"),
    *("--patience", "0", "--drop_path", "0.1", "--ema_decay", "0.9", "--mixup", "0.2", "--cutout", "0.1"),
]
STEPS = 15  # 3 epochs of ceil(18 / 4)

# Ends the process from within, when `argv[1]` optimizer steps are done, by the signal `argv[2]`.
ENDED_AFTER = """
import os, signal, sys
import train_pytorch
from tagger.training import trainer
step, number = int(sys.argv[1]), int(sys.argv[2])
inner = trainer.Trainer.train_step
def counted(self, *arguments):
    result = inner(self, *arguments)
    if self.progress.step + 1 == step:
        os.kill(os.getpid(), number)
    return result
trainer.Trainer.train_step = counted
sys.exit(train_pytorch.main(sys.argv[3:]))
"""

# Ends the process when half of the state after `argv[1]` steps is written.
ENDED_WRITING = """
import os, signal, sys
import torch, train_pytorch
inner = torch.save
def half(value, file):
    if "progress" in value and value["progress"]["step"] >= int(sys.argv[1]):
        file.write(b"half of a state")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    inner(value, file)
torch.save = half
sys.exit(train_pytorch.main(sys.argv[2:]))
"""


def a_state(step: int) -> dict[str, Any]:
    """The parts of a state, of next to nothing."""
    parts: dict[str, Any] = dict.fromkeys(checkpoints.STATE_KEYS)
    return parts | {"model": {"head.bias": torch.zeros(2)}, "progress": {"step": step}}


def step_of_newest(folder: Path) -> int:
    state = checkpoints.newest_state(folder, hint="")
    assert state
    return int(state["progress"]["step"])


def flags(records: Path, folder: Path, *more: object) -> list[str]:
    return ["--dataset_root", str(records), "--output_dir", str(folder), *FLAGS, *map(str, more)]


def run_code(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def weights(folder: Path, epoch: int = 3) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"eva02_tiny_epoch_{epoch}.pth", weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "checkpoints"
    # A process of its own, with as many threads as the killed ones have: sums depend on how they are split.
    done = run_script("train_pytorch.py", *flags(records, folder), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def go_on(records: Path, folder: Path, *more: object) -> None:
    """To the end, in a process of its own: with other numbers of threads, sums differ in their last digits."""
    done = run_script("train_pytorch.py", *flags(records, folder, *more), cwd=ROOT)
    assert done.returncode == 0, done.stderr


def assert_same(folder: Path, undisturbed: Path) -> None:
    for epoch in (1, 2, 3):
        ours, theirs = weights(folder, epoch), weights(undisturbed, epoch)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    columns = [0, 1, 2, 3, 4, 5]  # epoch, step, lr, train_loss, loss, mAP; the speed differs
    ours_rows, their_rows = (
        [[line.split(",")[column] for column in columns] for line in (path / "metrics.csv").read_text().splitlines()]
        for path in (folder, undisturbed)
    )
    assert ours_rows == their_rows and len(ours_rows) == 4


def test_killed_three_times(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    chance = random.Random(20261123)
    for step in sorted(chance.sample(range(1, STEPS), 3)):
        done = run_code(
            ENDED_AFTER,
            step,
            signal.SIGKILL.value,
            *flags(records, folder, "--save_every_steps", 2, "--resume", "auto"),
        )
        assert done.returncode == -signal.SIGKILL
    go_on(records, folder, "--save_every_steps", 2, "--resume", "auto")
    assert_same(folder, undisturbed)
    assert len(list(folder.glob("resume_*.pt"))) == 2


def test_stopped_by_sigterm_and_killed_while_writing(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    done = run_code(ENDED_AFTER, 7, signal.SIGTERM.value, *flags(records, folder))
    assert done.returncode == 0
    assert done.stderr.rstrip().endswith("stopped at step 7; the same command with --resume goes on")
    assert (folder / "resume_00000007.pt").exists()

    done = run_code(ENDED_WRITING, 10, *flags(records, folder, "--resume"))
    assert done.returncode == -signal.SIGKILL
    assert not (folder / "resume_00000010.pt").exists()
    go_on(records, folder, "--resume")
    assert_same(folder, undisturbed)


def test_killed_before_its_first_epoch_is_complete(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The checkpoint of the first epoch is there, and the state that belongs to it is not."""
    folder = tmp_path / "checkpoints"
    done = run_code(ENDED_WRITING, 1, *flags(records, folder))
    assert done.returncode == -signal.SIGKILL
    assert (folder / "eva02_tiny_epoch_1.pth").exists()
    go_on(records, folder, "--resume")
    assert_same(folder, undisturbed)


def test_sigterm_for_the_whole_group(records: Path, tmp_path: Path) -> None:
    """As torchrun and Slurm send it, to the decoding processes too."""
    # From outside: a decoding process takes a SIGTERM of its parent's for the end of the work.
    kill = "subprocess.run(['kill', '-TERM', '--', f'-{os.getpgid(0)}'], start_new_session=True); time.sleep(1)"
    code = "import os, subprocess, time\nos.setpgid(0, 0)" + ENDED_AFTER.replace("os.kill(os.getpid(), number)", kill)
    done = run_code(code, 3, signal.SIGTERM.value, *flags(records, tmp_path, "--num_workers", 2))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "resume_00000003.pt").exists()


def test_an_error_ends_the_decoding_processes_too(records: Path, tmp_path: Path) -> None:
    """One that nobody has foreseen, whose traceback keeps the loader alive."""
    code = ENDED_AFTER.replace("os.kill(os.getpid(), number)", "raise RuntimeError('unforeseen')")
    command = [sys.executable, "-c", code, "3", "0", *flags(records, tmp_path, "--num_workers", 2)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 70 and "unforeseen" in err


def test_processes_that_find_different_states_are_refused(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Two machines, each with a folder of its own; only the first has the state."""
    shutil.copytree(undisturbed, tmp_path / "0")
    (tmp_path / "1").mkdir()
    (tmp_path / "run.py").write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import train_pytorch\n"
        "sys.exit(train_pytorch.main([*sys.argv[1:], '--output_dir', os.environ['RANK']]))\n"
    )
    more = ["--batch_size", 2, "--resume", "auto"]
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc_per_node",
                "2",
                "--master_port",
                str(free_port()),
            ),
            *("run.py", *flags(records, tmp_path, *more)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode != 0
    assert "not every process finds the same state in it" in done.stderr


def test_a_finished_run_has_nothing_left_to_do(records: Path, undisturbed: Path) -> None:
    before = weights(undisturbed)
    assert train_pytorch.main(flags(records, undisturbed, "--resume")) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(undisturbed).items())


def test_resuming_with_other_settings_is_refused(
    records: Path, undisturbed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train_pytorch.main(flags(records, undisturbed, "--resume", "--lr", 0.5, "--seed", 7)) == 2
    line = error_line(capfd.readouterr().err)
    assert "--lr: the run that shall go on has 0.0001, not 0.5; --seed: the run that shall go on has 0, not 7" in line
    assert "leave these flags out, or begin another run with another --output_dir" in line


def test_flags_that_are_left_out_are_those_of_the_run(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    done = run_code(ENDED_AFTER, 7, signal.SIGTERM.value, *flags(records, folder))
    assert done.returncode == 0, done.stderr
    done = run_script("train_pytorch.py", "--output_dir", folder, "--resume", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(folder, undisturbed)


def test_a_run_may_become_longer(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(undisturbed, folder)
    done = run_script(
        "train_pytorch.py", "--output_dir", folder, "--resume", "--epochs", 5, "--device", "cpu", cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    told = "--epochs 5: planned for 3; from step 15 on the learning rate follows the longer schedule"
    assert told in done.stderr and "from the beginning" in done.stderr
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["epoch", "1", "2", "3", "4", "5"]
    assert float(rows[4][2]) > float(rows[5][2])  # the cosine of five epochs
    assert (folder / "eva02_tiny_epoch_5.pth").exists()
    done = run_script(
        "train_pytorch.py", "--output_dir", folder, "--resume", "--epochs", 4, "--device", "cpu", cwd=ROOT
    )
    assert "--epochs: the run that shall go on has 5, not 4; leave the flag out" in error_line(done.stderr)


def test_a_state_that_lacks_a_newer_setting_goes_on(records: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(undisturbed, folder)
    state = checkpoints.newest_state(folder, "")
    assert state is not None
    for name in ("bf16_gradients", "repeat_factor"):
        del state["settings"][name], state["remembered"][name]
    for path in folder.glob("resume_*.pt"):
        path.unlink()
    checkpoints.save_state(folder, STEPS, state)
    assert train_pytorch.main(flags(records, folder, "--resume", "--epochs", 4)) == 0
    assert (folder / "eva02_tiny_epoch_4.pth").exists()


def test_a_state_with_other_groups_of_parameters_is_refused_in_one_sentence(
    records: Path, undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(undisturbed, folder)
    state = checkpoints.newest_state(folder, "")
    assert state is not None
    first, second, *rest = state["optimizer"]["param_groups"]  # as one, of an optimizer that does not tell them apart
    state["optimizer"]["param_groups"] = [first | {"params": first["params"] + second["params"]}, *rest]
    for path in folder.glob("resume_*.pt"):
        path.unlink()
    checkpoints.save_state(folder, STEPS, state)
    assert train_pytorch.main(flags(records, folder, "--resume", "--epochs", 4)) == 2
    assert "its state does not fit (" in error_line(capfd.readouterr().err)


def test_what_is_refused_is_refused_before_a_model_is_built(
    records: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("models.build", build)
    (tmp_path / "file").touch()
    held = tmp_path / "held"
    shutil.copytree(undisturbed, held)
    for command, words in (
        (flags(records, undisturbed), "of an earlier run; pass --resume"),
        (flags(records, undisturbed, "--resume", "--lr", 0.5), "--lr: the run that shall go on has"),
        (flags(records, undisturbed, "--resume", "--model", "eva02_base"), "--model eva02_base: the run that shall go"),
        (flags(records, tmp_path / "file"), "file: not a folder; name another --output_dir"),
        (flags(records, tmp_path / "file", "--resume"), "file: not a folder; name that of the run with --output_dir"),
    ):
        assert train_pytorch.main(command) == 2
        assert words in error_line(capfd.readouterr().err)
    with locked_folder(held):
        assert train_pytorch.main(flags(records, held, "--resume")) == 2
    assert "is at work here; wait for it, or name another --output_dir" in error_line(capfd.readouterr().err)


def test_a_state_with_a_flipped_bit_or_without_numbers_is_passed_over(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = sorted(undisturbed.glob("resume_*.pt"))[-1]
    state = torch.load(newest, weights_only=True)
    older = a_state(1)
    checkpoints.save_state(tmp_path, 1, older)
    path = checkpoints.save_state(tmp_path, 2, state)
    data = bytearray(path.read_bytes())
    place = data.index(state["model"]["head.bias"].numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert step_of_newest(tmp_path) == 1
    assert f"{path}: damaged, its checksum is another; passed over" in capsys.readouterr().err
    for name in ("model", "ema"):
        path.unlink()
        path = checkpoints.save_state(tmp_path, 3, older | {name: {"head.bias": torch.tensor([0.0, float("nan")])}})
        assert step_of_newest(tmp_path) == 1
        assert "head.bias holds NaN or infinity" in capsys.readouterr().err


def test_another_programs_file_is_no_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints.save_state(tmp_path, 1, a_state(1))
    for value in ({"epoch": 3, "model": {"head.bias": torch.zeros(2)}}, [torch.zeros(2)]):
        torch.save(value, tmp_path / "resume_00000009.pt")
        assert step_of_newest(tmp_path) == 1
        assert "resume_00000009.pt: " in capsys.readouterr().err


def test_a_state_of_another_version_is_an_error(
    records: Path, undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(undisturbed, folder)
    newest = sorted(folder.glob("resume_*.pt"))[-1]
    state = torch.load(newest, weights_only=True)
    fewer_groups = state["optimizer"] | {"param_groups": state["optimizer"]["param_groups"][:-1]}
    for change in ({"progress": state["progress"] | {"seconds": 1.0}}, {"optimizer": fewer_groups}):
        torch.save(state | change, newest)
        assert train_pytorch.main(flags(records, folder, "--resume")) == 2
        line = error_line(capfd.readouterr().err)
        assert f"{folder}: its state does not fit" in line and "or begin again" in line


def test_what_makes_a_step_is_named_by_its_flags(
    records: Path, undisturbed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train_pytorch.main(flags(records, undisturbed, "--resume", "--batch_size", 9)) == 2
    line = error_line(capfd.readouterr().err)
    assert "the number of images per step: the run that shall go on has 4, not 9" in line
    assert "leave --batch_size and --grad_accumulation out and start as many processes as it had" in line


def test_resuming_nothing(records: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train_pytorch.main(flags(records, tmp_path / "none", "--resume")) == 2
    assert "no resume_*.pt of an earlier run" in error_line(capfd.readouterr().err)


def test_a_run_is_not_begun_over_another(records: Path, undisturbed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train_pytorch.main(flags(records, undisturbed)) == 2
    assert "pass --resume to go on with it, --overwrite" in error_line(capfd.readouterr().err)


def test_a_damaged_state_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2, 3):
        checkpoints.save_state(tmp_path, step, a_state(step))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["resume_00000002.pt", "resume_00000003.pt"]
    assert step_of_newest(tmp_path) == 3
    (tmp_path / "resume_00000003.pt").write_bytes((tmp_path / "resume_00000003.pt").read_bytes()[:100])
    assert step_of_newest(tmp_path) == 2
    assert "resume_00000003.pt: damaged" in capsys.readouterr().err
    (tmp_path / "resume_00000002.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no resume_\*\.pt can be read; begin again"):
        checkpoints.newest_state(tmp_path, hint="begin again")


def test_only_the_newest_checkpoints_are_kept(records: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert train_pytorch.main(flags(records, folder, "--keep_checkpoints", 1)) == 0
    assert sorted(path.name for path in folder.glob("*.pth")) == ["eva02_tiny_best.pth", "eva02_tiny_epoch_3.pth"]
