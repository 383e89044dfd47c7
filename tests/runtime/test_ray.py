"""Training on a Ray cluster: two nodes of one core each on this machine, started once for the file."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Cohort, Variable, read_cohort, write_cohort
from imputune.errors import UserError
from imputune.runtime.recorder import Recorder, Trial
from imputune.runtime.workers import Task, chosen_engine, run_fold_jobs

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

import ray
from ray._private.utils import check_version_info

from benchmarks.small_cluster import MIB, STORE, small_cluster
from imputune.runtime import own_ray, ray_cluster
from imputune.runtime.own_ray import private_folder
from imputune.runtime.ray_cluster import gpus_of_task, refusal

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent
PLANTED = b"PlantedNoteOfAPatient"
PLANTED_VALUE = np.float32(7654.321)


@dataclass(frozen=True)
class Done:
    """A fold's result."""

    fold: int
    final_metrics: dict[str, float]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, which can import this file."""
    with small_cluster(2, [HERE]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def engine(cluster, params):
    """The engine on these nodes."""
    with chosen_engine(params, "ray") as engine:
        yield engine


@pytest.fixture(scope="module")
def params():
    """The committed params.yaml, on the CPU."""
    from imputune.settings.file import read_params

    return read_params(HERE.parents[1] / "params.yaml").model_copy(update={"device": "cpu"})


def many_reports(fold: int, recorder: Recorder) -> Done:
    """Report much over more than a second, the last of it right before the end."""
    for epoch in range(300):
        recorder.epoch(fold, epoch, {"loss": fold + epoch / 10})
        time.sleep(0.005)
    curve = [{"validation_loss": 0.4}]
    recorder.trial_finished(fold, Trial(number=0, learning_rate=1e-4, state="pruned", validation_loss=0.4, curve=curve))
    return Done(fold, {"auc": fold / 10})


def test_every_report_comes_once_in_order_and_before_its_result(recorder, engine):
    """Results come in the order of the jobs; each fold's reports are complete, and some come while it is trained."""
    early = []

    class Strict(type(recorder)):
        def epoch(self, fold, epoch, metrics):
            early.append(not self.finished and epoch < 299)
            super().epoch(fold, epoch, metrics)

        def fold_finished(self, fold, metrics):
            assert [event[1] for event in self.epochs if event[0] == fold] == list(range(300))
            assert [trial.number for number, trial in self.trials if number == fold] == [0]
            super().fold_finished(fold, metrics)

    strict = Strict()
    results = run_fold_jobs(many_reports, [0, 1, 2], strict, engine)
    assert [result.fold for result in results] == [0, 1, 2]
    assert sorted(fold for fold, _ in strict.finished) == [0, 1, 2]
    assert any(early)
    assert engine.at_once == 2


def tell_where(fold: int, recorder: Recorder) -> Done:
    """Tell the process, whether the package came from the command, and how numbers are computed."""
    import torch

    import imputune

    product = (torch.full((64,), 1e-30) * 1e-9).max().item()
    metrics = {
        "pid": os.getpid(),
        "sent": float("runtime_resources" in imputune.__file__),
        "data": float((Path(imputune.__file__).parents[1] / "params.yaml").exists()),
        "threads": torch.get_num_threads(),
        "product": product,
    }
    time.sleep(0.5)
    return Done(fold, metrics)


def test_the_nodes_get_the_package_alone_and_compute_on_one_thread(recorder, engine):
    """The package comes from the command, without the project's files; a product below 1e-38 is 0."""
    found = [each.final_metrics for each in run_fold_jobs(tell_where, [0, 1], recorder, engine)]
    assert len({each["pid"] for each in found}) == 2
    for each in found:
        assert (each["sent"], each["data"], each["threads"], each["product"]) == (1, 0, 1, 0)


def fail_in_fold_1(job: tuple[int, Path], recorder: Recorder) -> Done:
    """Fail in one fold while the other takes long and then leaves a file."""
    fold, ended = job
    if fold == 1:
        raise UserError("fold 1 broke")
    time.sleep(6)
    ended.touch()
    return Done(fold, {})


def test_an_error_in_one_fold_ends_the_others(recorder, engine, tmp_path):
    """The fold's own error is raised, in one line, and the other task is cancelled."""
    ended = tmp_path / "ended"
    started = time.monotonic()
    with pytest.raises(UserError) as raised:
        run_fold_jobs(fail_in_fold_1, [(0, ended), (1, ended)], recorder, engine)
    assert (str(raised.value), raised.value.exit_code) == ("fold 1 broke", 2)
    time.sleep(max(0.0, started + 8 - time.monotonic()))
    assert not ended.exists()
    assert not recorder.finished


def lose_the_worker(job: tuple[int, Path, int], recorder: Recorder) -> Done:
    """Report two epochs, and end the worker after the first as the system does, a number of times."""
    fold, folder, deaths = job
    recorder.epoch(fold, 0, {"loss": 0.5})
    time.sleep(0.3)
    recorder.epoch(fold, 1, {"loss": 0.4})
    time.sleep(0.3)
    tries = len(list(folder.glob(f"{fold}-*")))
    (folder / f"{fold}-{tries}").touch()
    if tries < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return Done(fold, {"tries": tries})


def test_a_fold_whose_worker_is_killed_is_trained_again_and_reported_once(recorder, engine, tmp_path):
    """The fold is done once, and the recorder hears of each epoch once."""
    results = run_fold_jobs(lose_the_worker, [(0, tmp_path, 1), (1, tmp_path, 0)], recorder, engine)
    assert [each.final_metrics["tries"] for each in results] == [1, 0]
    assert sorted(event[:2] for event in recorder.epochs) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sorted(fold for fold, _ in recorder.finished) == [0, 1]


def test_a_fold_that_always_kills_its_worker_is_one_line(recorder, engine, tmp_path, monkeypatch):
    """After the last retry the command ends with the usual cause and remedy; here the second is the last."""
    monkeypatch.setattr(engine, "_work", engine.work_with(retries=1))
    message = r"^Ray lost the work on a fold too often \(WorkerCrashedError\), most often for lack of memory: give "
    with pytest.raises(UserError, match=message):
        run_fold_jobs(lose_the_worker, [(0, tmp_path, 9)], recorder, engine)
    assert len(list(tmp_path.iterdir())) == 2


def work_a_while(job: tuple[int, Path], recorder: Recorder) -> Done:
    """Note the start, and take a second."""
    fold, notes = job
    with notes.open("a") as file:
        file.write(f"{fold}\n")
    time.sleep(1)
    return Done(fold, {})


def test_a_node_that_is_killed_costs_the_fold_it_was_training(recorder, cluster, engine, tmp_path):
    """A node joins, takes tasks and dies: every fold is done once, and one is trained twice at most."""
    node = cluster.add()
    notes, done = tmp_path / "notes", []
    until = time.monotonic() + 10
    while engine.at_once < 3:
        assert time.monotonic() < until
        time.sleep(0.2)

    def tasks():
        for fold in range(9):
            if fold == 5:
                cluster.kill(node)
            yield Task(
                work=work_a_while, job=(fold, notes), recorder=recorder, done=lambda each: done.append(each.fold)
            )

    engine.run(tasks())
    assert sorted(done) == list(range(9))
    assert sorted(fold for fold, _ in recorder.finished) == list(range(9))
    starts = notes.read_text().split()
    assert set(starts) == {str(fold) for fold in range(9)}
    assert len(starts) <= 10


def cohort_of(values_NTD: np.ndarray) -> Cohort:
    """Return a cohort with these values and a planted text."""
    count = len(values_NTD)
    return Cohort(
        dataset="synthetic",
        stay_ids_N=np.arange(count),
        outcome_N=np.zeros(count, dtype=np.int8),
        values_NTD=values_NTD,
        variables=tuple(Variable(f"v{number}", "1") for number in range(values_NTD.shape[2])),
        static=pd.DataFrame(index=range(count)),
        source={"exclusions": {}, "note": PLANTED.decode()},
    )


def read_values(job: tuple[int, Cohort], recorder: Recorder) -> Done:
    """Read a cohort's values."""
    fold, cohort = job
    return Done(fold, {"sum": float(cohort.values_NTD.sum()), "stays": len(cohort.stay_ids_N)})


def test_a_mapped_cohort_travels_once_and_leaves_no_trace(recorder, cluster, engine, tmp_path, monkeypatch):
    """Nodes read its values without its folder; the object store gets it once; nothing of it stands in a file."""
    values = np.full((50, 48, 2), PLANTED_VALUE, dtype=np.float32)
    write_cohort(cohort_of(values), tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    puts = []
    whole = engine._put
    monkeypatch.setattr(engine, "_put", lambda content: puts.append(content) or whole(content))
    results = run_fold_jobs(read_values, [(fold, cohort) for fold in range(4)], recorder, engine)
    assert [each.final_metrics for each in results] == [{"sum": float(values.sum()), "stays": 50}] * 4
    assert len(puts) == 1
    for path in cluster.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PLANTED not in content, path
            assert PLANTED_VALUE.tobytes() * 2 not in content, path


def test_values_changed_since_reading_are_named(recorder, engine, tmp_path):
    """If values.npy changes after the command read it, nothing is sent."""
    write_cohort(cohort_of(np.zeros((2, 48, 1), dtype=np.float32)), tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    os.utime(tmp_path / "cohort/values.npy", ns=(0, 0))
    with pytest.raises(UserError, match=r"values\.npy has changed since the command began: start the command again"):
        run_fold_jobs(read_values, [(0, cohort)], recorder, engine)


def test_too_little_object_store_is_one_line(recorder, engine):
    """A cohort that does not fit is refused before anything is trained; the line has both sizes."""
    cohort = cohort_of(np.zeros((STORE // (48 * 4) + 9000, 48, 1), dtype=np.float32))
    with pytest.raises(UserError) as raised:
        run_fold_jobs(read_values, [(0, cohort)], recorder, engine)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("the object store of Ray's node ")
    assert f"has {STORE / MIB:.0f} MiB, and the cohorts of the command need 10" in str(raised.value)
    assert str(raised.value).endswith(": start the node with a larger --object-store-memory")


def read_many(job: tuple[int, list[Cohort]], recorder: Recorder) -> Done:
    """Count the stays of several cohorts."""
    fold, cohorts = job
    return Done(fold, {"stays": sum(len(cohort.stay_ids_N) for cohort in cohorts)})


def test_cohorts_that_fit_one_by_one_must_fit_together(recorder, engine, monkeypatch):
    """A run's cohorts count together, the next run begins anew; a Ray of the command's own has another remedy."""
    half = STORE // (48 * 4) // 2
    cohorts = [cohort_of(np.zeros((half, 48, 1), dtype=np.float32)) for _ in range(2)]
    results = [run_fold_jobs(read_many, [(0, [cohort])], recorder, engine)[0] for cohort in cohorts]
    assert [each.final_metrics["stays"] for each in results] == [half, half]
    monkeypatch.setattr(engine, "cluster", replace(engine.cluster, own=True))
    with pytest.raises(UserError, match=r"and the cohorts of the command need 10\d: train with --engine local, which"):
        run_fold_jobs(read_many, [(0, cohorts)], recorder, engine)


def test_the_object_store_of_the_commands_node_counts_without_cores_for_tasks(cluster, engine, monkeypatch):
    """What is shared goes to the command's node first, also where it has no core for tasks."""
    monkeypatch.setattr(type(engine.cluster), "nodes", lambda cluster: [])
    engine.cluster.check_room(STORE)
    with pytest.raises(UserError, match=r"^the object store of Ray's node "):
        engine.cluster.check_room(STORE + MIB)


def test_every_node_is_checked_also_two_of_one_host(engine, monkeypatch):
    """Nodes of one host have one name; both are asked what is installed."""
    waited = []
    whole = ray_cluster._wait_for_check
    monkeypatch.setattr(ray_cluster, "_wait_for_check", lambda *check: waited.append(check[0]) or whole(*check))
    living = {node["NodeID"] for node in ray_cluster._prepared("cpu", own=False).nodes()}
    assert len(living) == 2
    assert living <= {node["NodeID"] for node in waited}
    assert len({node["NodeManagerHostname"] for node in waited}) == 1


def test_a_node_that_has_just_died_is_left_out(cluster, engine):
    """Ray still names it for some seconds; a command that starts then trains on the others."""
    node = cluster.add()
    until = time.monotonic() + 10
    while engine.at_once < 3:
        assert time.monotonic() < until
        time.sleep(0.2)
    cluster.kill(node)
    assert len(ray_cluster._prepared("cpu", own=False).nodes()) == 2


def test_the_engine_tells_the_device(engine, monkeypatch):
    """It is what folds compute on, whatever the command's machine has."""
    assert engine.device("auto") == "cpu"
    monkeypatch.setattr(engine, "cluster", replace(engine.cluster, gpus_of_task=0.25))
    assert {engine.device(name) for name in ("auto", "cuda")} == {"cuda"}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "cannot start Ray on this machine: The current node timed out; try again, or train with --engine local"),
        (
            "10.0.0.1:6379",
            "cannot use the Ray cluster at 10.0.0.1:6379: The current node timed out; correct RAY_ADDRESS, or train "
            "with --engine local",
        ),
    ],
)
def test_a_plain_exception_of_ray_is_one_line(monkeypatch, address, message):
    """Ray raises Exception itself, with several lines, where a node takes too long to start."""

    def too_slow(**options: object) -> None:
        raise Exception("The current node\ntimed out")

    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(UserError) as raised:
        ray_cluster._initialise({}, address)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("address", "told", "message"),
    [
        (
            "10.0.0.1:6379",
            "Failed to connect to Ray cluster at 10.0.0.1:6379",
            "no Ray cluster answers at 10.0.0.1:6379: start one with `ray start --head`, correct RAY_ADDRESS, or unset "
            "it to train on this machine",
        ),
        (
            "auto",
            "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag",
            "no Ray cluster answers on this machine (RAY_ADDRESS is auto): start one with `ray start --head`, correct "
            "RAY_ADDRESS, or unset it to train on this machine",
        ),
        (
            "auto",
            "Found multiple active Ray instances: {'10.0.0.1:1', '10.0.0.1:2'}. Please specify `--address`",
            "several Ray clusters run on this machine: set RAY_ADDRESS to host:port of the one to use",
        ),
    ],
)
def test_no_connection_is_told_in_our_words_without_each_try(monkeypatch, capfd, address, told, message):
    """Ray names options that no command has, and writes a line for each try past all logging; other lines stay."""
    line = "[2026-11-26 19:41:50,567 W 1 1] gcs_client.cc:210: Failed to get cluster ID from GCS server: RpcError"

    def unanswered(**options: object) -> None:
        os.write(2, f"{line}\n{line}\nanother line\n".encode())
        raise ConnectionError(told)

    monkeypatch.setattr(ray, "init", unanswered)
    with pytest.raises(UserError) as raised:
        ray_cluster._initialise({}, address)
    assert str(raised.value) == message
    assert capfd.readouterr().err == "another line\n"


def test_a_failed_start_leaves_no_process_and_no_folder(params, tmp_path, monkeypatch):
    """Ray forgets what it started before a failure; a process of it that goes on would make the folder again."""
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    masks, started = [], []

    def too_slow(_temp_dir: str, **options: object) -> None:
        masks.append(os.umask(0o077))
        maker = f"import os, time\nwhile True: os.makedirs({_temp_dir!r} + '/logs', exist_ok=True)"
        child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {maker!r}]).wait()"
        started.append((subprocess.Popen([sys.executable, "-c", child, _temp_dir]), Path(_temp_dir)))
        while not Path(_temp_dir, "logs").exists():
            time.sleep(0.01)
        raise Exception("The current node timed out during startup")

    before = os.umask(0o022)
    try:
        monkeypatch.setattr(ray, "init", too_slow)
        monkeypatch.setattr(ray, "shutdown", lambda: None)  # it would end the connection of the other tests
        with pytest.raises(UserError, match="cannot start Ray on this machine"), chosen_engine(params, "ray"):
            pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    [(process, folder)] = started
    assert process.wait(timeout=10) == -signal.SIGKILL
    time.sleep(0.3)
    assert not folder.parent.exists()
    assert list(tmp_path.iterdir()) == []
    assert masks == [0o077]


def test_a_node_with_other_packages_is_one_line(recorder, engine, monkeypatch):
    """A node that joined after the command began is checked at its first fold; the line names both versions."""
    expected = {**engine.cluster.expected, "numpy": "1.0"}
    monkeypatch.setattr(engine, "cluster", replace(engine.cluster, expected=expected))
    here = engine.cluster.expected["pandas"]
    assert here == pd.__version__
    with pytest.raises(
        UserError, match=rf"^Ray's node \S+ has numpy {np.__version__}, this machine has 1\.0: install "
    ):
        run_fold_jobs(tell_where, [0], recorder, engine)
    assert not recorder.finished


def test_another_ray_or_python_is_one_line():
    """Ray's own refusal has several lines; the command's has one, with all four versions."""
    other = {"ray_version": "2.9.0", "python_version": "3.10.1"}
    with pytest.raises(RuntimeError) as raised:
        check_version_info(other, "this process")
    assert "\n" in str(raised.value)
    versions = (
        f"this machine has Ray {ray.__version__} and Python {platform.python_version()}: install the same versions"
    )
    assert refusal("10.0.0.1:6379", raised.value) == (
        f"the Ray cluster at 10.0.0.1:6379 has Ray 2.9.0 and Python 3.10.1, {versions} on every node"
    )


OWN = """
import os, sys, tempfile
from pathlib import Path
import numpy as np
from imputune.runtime.workers import chosen_engine
from imputune.settings.file import read_params
VALUE = np.float32(7654.321)
folders = lambda: [path for parent in ("/tmp", tempfile.gettempdir()) for path in Path(parent).glob("imputune-ray-*")]
before = folders()
with chosen_engine(read_params(Path(sys.argv[1])), "ray", 1):
    import ray
    kept = [ray.put(np.full(30 * 2**20 // 4, VALUE)) for _ in range(8)]
    ours = [path for path in folders() if path not in before]
    print(*ours)
    print(*(oct(path.stat().st_mode & 0o777) for path in ours))
    holds = lambda folder: any(VALUE.tobytes() * 2 in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    print(*map(holds, ours))
    print(ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0))
    del kept
print(*(path.exists() for path in ours))
"""


def test_a_ray_of_its_own_spills_to_a_private_folder_that_is_removed(tmp_path):
    """Spilled values stand in TMPDIR, in a folder for this user alone, and not in Ray's logs; both are gone at the end.

    Nothing is written to the home folder. Workers have the command's priority.
    """
    available = next(line.split() for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    small = {
        "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": str(120e6 / (1024 * int(available[1]))),
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path / "home"),
    }
    kept = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", OWN, str(HERE.parents[1] / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=kept | small, timeout=300)
    assert done.returncode == 0, done.stderr
    folders, modes, holding, nicer, left = done.stdout.splitlines()
    assert [Path(each).parent for each in folders.split()] == [Path("/tmp"), tmp_path]
    assert modes == "0o700 0o700"
    assert holding == "False True"
    assert nicer == "0"
    assert left == "False False"
    assert not (tmp_path / "home").exists()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "127.0.0.1:1",
            "no Ray cluster answers at 127.0.0.1:1 (Connection refused): start one with `ray start --head`",
        ),
        ("here", "RAY_ADDRESS is 'here': it must be auto, or host:port such as 10.0.0.1:6379"),
        ("ray://head:10001", "RAY_ADDRESS is ray://head:10001, an address of Ray's client: run the command on a node"),
    ],
)
def test_no_such_cluster_is_one_line(params, monkeypatch, address, message):
    """A cluster that does not answer, and an address that cannot be one, are refused at once."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError) as raised, chosen_engine(params, "ray"):
        pass
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_shares_of_gpus():
    """The smallest share that a node with GPUs has a core; whole GPUs above one, as Ray counts them."""

    def nodes(*resources: tuple[float, float]) -> list[Any]:
        return [{"Resources": {"CPU": cores, "GPU": gpus} if gpus else {"CPU": cores}} for cores, gpus in resources]

    assert gpus_of_task(nodes((4, 0), (2, 0)), "auto") == 0
    assert gpus_of_task(nodes((4, 1), (2, 0), (16, 8)), "auto") == 0.25
    assert gpus_of_task(nodes((3, 1)), "cuda") == 0.3333
    assert gpus_of_task(nodes((2, 5)), "cuda") == 2
    assert gpus_of_task(nodes((4, 1)), "cpu") == 0
    with pytest.raises(UserError, match="no node of the Ray cluster has a GPU: set device to auto or cpu"):
        gpus_of_task(nodes((4, 0)), "cuda")


def test_private_folders_are_removed_also_those_of_killed_commands(tmp_path, monkeypatch):
    """A folder is for its user alone; one whose command has ended is removed by the next, one in use is not."""
    left = tmp_path / f"{own_ray.FOLDER}left"
    left.mkdir()
    (left / own_ray.LOCK).touch()
    with private_folder(tmp_path) as folder:
        assert left.exists()  # it may be a moment old
        assert folder.stat().st_mode & 0o777 == 0o700
        monkeypatch.setattr(own_ray, "SURELY_LOCKED_SECONDS", -1.0)
        with private_folder(tmp_path) as other:
            assert not left.exists()
            assert folder.exists()
            assert other.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_removal_was_cut_off_is_removed(tmp_path):
    """A folder without a lock is removed after its first seconds; what a link of that name leads to is not."""
    cut_off, kept = tmp_path / f"{own_ray.FOLDER}cut-off", tmp_path / "kept"
    for folder in (cut_off, kept):
        folder.mkdir()
        (folder / "spilled").touch()
    link = tmp_path / f"{own_ray.FOLDER}link"
    link.symlink_to(kept)
    with private_folder(tmp_path):
        assert cut_off.exists()  # its command may be about to lock it
    long_ago = time.time() - 60
    os.utime(cut_off, (long_ago, long_ago))
    with private_folder(tmp_path):
        assert not cut_off.exists()
    assert sorted(tmp_path.iterdir()) == sorted([kept, link])
    assert (kept / "spilled").exists()


def test_the_lock_goes_last(tmp_path, monkeypatch):
    """A removal that is cut off leaves the lock, so the next command does it again."""

    def cut_off(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "folder"
    (folder / "spilled").mkdir(parents=True)
    (folder / own_ray.LOCK).touch()
    monkeypatch.setattr(own_ray.shutil, "rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        own_ray._remove(folder)
    assert (folder / own_ray.LOCK).exists()
