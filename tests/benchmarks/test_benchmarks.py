"""The benchmark suite: it runs, compares before it times, and writes its tables. No figure decides anything here."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import measure, results, table, targets
from benchmarks.__main__ import main
from benchmarks.contenders import AUGMENTERS, CONTENDERS, LOADER, PEERS, Absent, Case, Contender, load
from benchmarks.contenders.policies import POLICIES
from benchmarks.measure import OUT_OF_TIME, Runner, Settings, Worker, WorkerError, race, row, spread
from benchmarks.plots import bars, lines
from benchmarks.sanity import check_batch, check_rotation
from benchmarks.suites import SUITES, modern_on_gpu, policies, suite
from benchmarks.work import picture, pictures
from benchmarks.worker import open_checked

ROOT = Path(__file__).resolve().parents[2]
QUICK = Settings(seconds=0.02, rounds=2, peers=(), smoke=True, say=lambda text: None)


@pytest.fixture(autouse=True)
def _small_room(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUSEQ_BENCH_DIR", str(tmp_path_factory.getbasetemp() / "bench"))


def made_up(device: str = "cpu") -> dict[str, Any]:
    """Return a result file with known figures."""
    environment = {
        "date": "2026-01-02 03:04 UTC",
        "cpu": "A processor",
        "cores": 2,
        "memory_gib": 8.0,
        "load_average": 0.1,
        "others_busy": 0.01,
        "system": "Linux",
        "python": "3.11.0",
        "commit": "abc",
        "uncommitted": False,
        "gpu": None,
        "versions": {"gpuseq": "0"},
    }
    ours = "gpuseq, CPU" if device == "cpu" else "gpuseq, GPU"
    case = targets.HEADLINE
    rows = [
        row("arrays", case, ours, "img/s", [900, 1000, 1100]),
        row("arrays", case, targets.BASE, "img/s", [250, 250, 250]),
        row("arrays", case, "Somebody", "img/s", [1500, 1500, 1500]),
        row("arrays", case, "Nobody", "img/s", absent="not installed (no module)"),
    ]
    growth = [
        row("growth", "batch size", ours, "img/s", [100.0 * x], at={"x": x, "of": "batch size"}) for x in (1, 4, 16)
    ]
    kernel = [row("kernel", "batch 256", name, "us", absent="no GPU here") for name in ("device copy", "flip")]
    suites = {
        name: {"environment": environment, "settings": {}, "took_s": 1.0, "rows": found}
        for name, found in (("arrays", rows), ("growth", growth), ("kernel", kernel))
    }
    return {"schema": results.SCHEMA, "device": device, "smoke": False, "suites": suites}


# The measuring.


def test_median_and_quartiles() -> None:
    assert spread([4, 1, 3, 2, 5]) == {"median": 3.0, "q1": 2.0, "q3": 4.0}


def test_a_race_reports_every_slice_of_every_runner() -> None:
    case = {"size": 24, "batch": 4, "samples": 12}
    found = race("arrays", "tiny", [Runner("gpuseq", "a", case), Runner("gpuseq", "b", case, images=12)], QUICK)
    assert [item["contender"] for item in found] == ["a", "b"]
    assert all(len(item["values"]) == QUICK.rounds and min(item["values"]) > 0 for item in found)


def test_a_contender_that_fails_is_reported_and_the_others_run() -> None:
    case = {"size": 24, "batch": 4, "samples": 12}
    found = race(
        "arrays", "tiny", [Runner("gpuseq", "bad", case | {"dtype": "int3"}), Runner("gpuseq", "good", case)], QUICK
    )
    assert "int3" in found[0]["absent"]
    assert "median" not in found[0]
    assert "median" in found[1]


def test_a_contender_whose_library_is_missing_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kornia.py").write_text("raise ImportError('no such thing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = race("arrays", "tiny", [Runner("kornia", "Kornia", {"size": 24, "batch": 4, "samples": 12})], QUICK)
    assert found[0]["absent"] == "not installed (no such thing)"


def test_processes_stay_for_the_next_race_where_nothing_failed() -> None:
    tiny = {"size": 24, "batch": 4, "samples": 4}
    kept: dict[str, Worker] = {}
    erasing = tiny | {"policy": "RandomErasing(1.0)"}
    runners = [Runner("gpuseq", way, erasing | {"way": way}) for way in ("iterator", "Compose")]
    found = race("modern", "tiny", [*runners, Runner("nobody", "nobody", tiny)], QUICK, kept=kept)
    assert ["median" in item for item in found] == [True, True, False]
    assert set(kept) == {"iterator", "Compose"}
    first = dict(kept)
    try:
        others = [replace(runner, case=runner.case | {"policy": "RandAugment(2, 9)"}) for runner in runners]
        others.append(Runner("gpuseq", "bad", tiny | {"policy": "Nothing()"}))
        found = race("modern", "tiny", others, QUICK, kept=kept)
        assert ["median" in item for item in found] == [True, True, False]
        assert "Nothing()" in found[-1]["absent"]
        assert kept == first
    finally:
        for worker in kept.values():
            worker.close()


def test_nobody_is_waited_for_beyond_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert QUICK.within(90) == QUICK.for_half_the_time().within(90) == 90
    left = replace(QUICK, deadline=time.monotonic() + 1e6)
    assert left.within(90) == 90
    assert left.within(1e9) > 1.5 * left.for_half_the_time().within(1e9) > 90
    assert replace(QUICK, deadline=0.0).within(90) == measure.LEAST_ANSWER_S
    limits: list[float] = []

    def hangs(worker: Worker, limit: float) -> Any:
        limits.append(limit)
        raise WorkerError("no answer")

    monkeypatch.setattr(measure, "OPENING_S", 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "hear", hangs)
        found = race("arrays", "tiny", [Runner("nobody", name, {}) for name in "ab"], left)
    assert [item["absent"] for item in found] == ["failed: no answer"] * 2
    assert all(1e5 < limit <= 5e5 for limit in limits if limit != measure.ANSWER_S)


@pytest.mark.filterwarnings("ignore")  # Keras' own
@pytest.mark.parametrize("policy", POLICIES)
def test_keras_layers_augment_by_each_policy_that_they_know(policy: str) -> None:
    torch, keras = pytest.importorskip("torch"), pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras is on another backend in this process")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    case = Case(size=24, batch=4, samples=4, policy=policy, device=device)
    contender = load("keras-layers-torch", for_policy=True)(case)
    with torch.random.fork_rng():
        if policy == "TrivialAugmentWide()":
            with pytest.raises(Absent, match="no layer for TrivialAugment"):
                contender.prepare()
            return
        contender.prepare()
        open_checked(contender)
        assert len(contender.next_batch()) == 4


def test_a_process_that_dies_says_so() -> None:
    worker = Worker("nobody", {})
    with pytest.raises(WorkerError, match="nobody"):
        worker.ask(do="open", case={})
    worker.close()


# The sanity checks: each must be able to fail.


def test_a_turned_picture_passes_and_others_do_not() -> None:
    generator = load("gpuseq")(Case())
    generator.prepare()
    turned = generator.rotate(30.0)
    assert turned is not None
    check_rotation(turned)
    check_rotation(generator.rotate(-30.0))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="off by"):
        check_rotation(generator.rotate(25.0))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="off by"):
        check_rotation(picture())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda batch: batch[:, :20], "shape"),
        (lambda batch: batch.astype(np.float64), "float64"),
        (lambda batch: batch * 255, "values reach from"),
        (lambda batch: batch / 255, "scaled twice"),
        (lambda batch: np.full_like(batch, 0.5), "flat"),
    ],
)
def test_a_batch_that_is_not_the_work_is_refused(spoil: Any, message: str) -> None:
    good = (pictures(8, 24) / 255).astype(np.float32)
    check_batch(good, Case(size=24))
    with pytest.raises(AssertionError, match=message):
        check_batch(spoil(good), Case(size=24))


def test_every_contender_loads_without_its_library() -> None:
    code = (
        "import sys; sys.path_importer_cache.clear()\n"
        "from benchmarks.contenders import AUGMENTERS, CONTENDERS, Contender, load\n"
        "assert all(issubclass(load(name), Contender) for name in CONTENDERS)\n"
        "assert all(issubclass(load(name, for_policy=True), Contender) for name in AUGMENTERS)\n"
        "theirs = {'keras', 'torch', 'jax', 'torchvision', 'kornia', 'albumentations', 'cv2', 'timm'}\n"
        "heavy = set(sys.modules) & theirs\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert issubclass(load("gpuseq"), Contender)
    assert len(CONTENDERS) > 5
    assert {name.removesuffix(LOADER) for name in AUGMENTERS} - {"timm"} < set(CONTENDERS), "chosen by the same names"
    assert set(PEERS) == {name.removesuffix(LOADER) for name in (*CONTENDERS, *AUGMENTERS)} - {"gpuseq"}


# The suites, tiny.


@pytest.mark.parametrize("name", [name for name in SUITES if name not in ("imports", "feed", "growth")])
def test_a_suite_runs(name: str) -> None:
    found = suite(name)(QUICK)
    assert found
    for item in found:
        assert item["suite"] == name
        assert ("absent" in item) != ("median" in item)
        assert name == "kernel" or "median" in item, item
    json.dumps(found)


def test_the_host_suite_measures_the_real_launcher_and_puts_it_back() -> None:
    from gpuseq.ops import dispatch as ops
    from gpuseq.ops.cuda import compile as kernels

    before = (ops._engine_for, ops._program_engine_for, kernels.load)
    found = {item["contender"] for item in suite("host")(QUICK)}
    assert {"plan, the draw included", "launch", "plan and launch", "RandAugment(2, 9), by next()"} <= found
    assert (ops._engine_for, ops._program_engine_for, kernels.load) == before


@pytest.mark.parametrize("name", ["imports", "feed", "growth"])
def test_a_longer_suite_runs(name: str) -> None:
    assert all(("absent" in item) != ("median" in item) for item in suite(name)(QUICK))


# The command.


def test_the_command_writes_a_file_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "host.json"
    arguments = ["run", "--smoke", "--suite", "host", "--peers", "--json", str(out)]
    assert main(arguments) == 0
    first = results.read(out)
    environment = first["suites"]["host"]["environment"]
    assert {"cpu", "cores", "commit", "versions", "gpu", "date"} <= set(environment)
    assert main([*arguments, "--resume"]) == 0
    assert results.read(out) == first
    with pytest.raises(ValueError, match="another kind of run"):
        main(["run", "--suite", "host", "--json", str(out)])


@pytest.mark.parametrize("wrong", [["--suite", "nothing"], ["--peers", "nobody"], ["--seconds", "0"]])
def test_the_command_refuses(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", *wrong])
    assert (wrong[0] if wrong[0] == "--seconds" else wrong[-1]) in capsys.readouterr().err.splitlines()[-1]


def test_a_result_file_keeps_its_rows_one_to_a_line(tmp_path: Path) -> None:
    made = made_up()
    results.write(tmp_path / "a.json", made)
    assert results.read(tmp_path / "a.json") == made
    assert sum('"contender"' in line for line in (tmp_path / "a.json").read_text().splitlines()) == 9
    results.write(tmp_path / "b.json", made | {"suites": {}})
    assert results.read(tmp_path / "b.json")["suites"] == {}


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema"):
        results.read(tmp_path / "a.json")


# The tables.


def test_the_table_shows_figures_losses_and_absences() -> None:
    text = table.tables([made_up()])
    assert "| **gpuseq, CPU** | 1,000 | 950 to 1,050 | 4.00 |" in text
    assert "| Somebody | 1,500 |" in text
    assert "| Nobody | absent | | | not installed (no module) |" in text
    assert "| arrays: 224x224, batch 32, float32 | Somebody | 1.50 |" in text
    assert "| arrays, 224x224, batch of 32 | at least 15 times Keras' generator | 4.00 times | **missed** |" in text
    assert "| arrays, 224x224 | at least 2.5 times the fastest peer | 0.67 times (Somebody) | **missed** |" in text
    assert "| import gpuseq | at most 0.2 s | not measured |" in text
    assert "batch 256: not measured: no GPU here." in text
    assert "The GPU round has not run yet" in text


def test_a_cache_does_not_hide_who_decodes_faster() -> None:
    rows = [
        row("folder", "augmented", "gpuseq, CPU, epoch 2 on, host cache", "img/s", [900]),
        row("folder", "augmented", "gpuseq, CPU, epoch 2 on, no cache", "img/s", [400]),
        row("folder", "augmented", "Somebody", "img/s", [800]),
    ]
    assert targets.peers_ahead(rows) == [("folder: augmented", "Somebody", 2.0)]


def test_processor_time_is_compared_with_the_cheapest_peer() -> None:
    case = "arrays, 224x224"
    made = {"gpuseq, compiled": 100, "gpuseq, NumPy": 50, targets.BASE: 2000, "Somebody": 240, "Nobody": 900}
    rows = [row("cost", case, name, "us of CPU per image", [value]) for name, value in made.items()]
    rows += [row("engines", f"224x224, {name}", "gpuseq, compiled", "img/s", [900]) for name in ("a", "b")]
    rows += [row("engines", f"224x224, {name}", "gpuseq, NumPy", "img/s", [v]) for name, v in (("a", 100), ("b", 300))]
    found = {(item.what, item.aim): (item.measured, item.met) for item in targets.outcomes(rows, "cpu")}
    what = "processor time per image, arrays, 224x224"
    assert found[what, "at least 15 times less than Keras' generator"] == (f"20.00 times ({targets.BASE})", True)
    assert found[what, "at least 2.5 times less than the cheapest peer"] == ("2.40 times (Somebody)", False)
    every = "compiled engine, each dtype, order, fill mode and colour"
    assert found[every, "at least 4 times NumPy"] == ("3.00 times (224x224, b) or more", False)


def test_policies_are_compared_on_one_thread_and_on_all_cores() -> None:
    """Each with its best peer, in the suite that measures it: no figure of one stands for the other."""
    policy, unit = "TrivialAugmentWide()", "us of CPU per image"
    case = policies.case_name(policy)
    rows = [row("modern", policy, name, unit, [us]) for name, us in (("gpuseq", 100), ("Any", 240), ("Other", 900))]
    rows += [row("policies", case, name, "img/s", [v]) for name, v in (("gpuseq, CPU", 900), ("Any, DataLoader", 300))]
    found = {item.what: (item.aim, item.measured, item.met) for item in targets.outcomes(rows, "cpu")}
    aim = "at least 2.5 times less than the cheapest peer"
    assert found[f"processor time per image, {policy}"] == (aim, "2.40 times (Any)", False)
    aim, measured = "at least 2.5 times the fastest peer", "3.00 times (Any, DataLoader)"
    assert found[f"{policy}, batch of 32, all cores"] == (aim, measured, True)
    assert found["RandomErasing(1.0), batch of 32, all cores"][1:] == ("not measured", None)


def test_a_missed_target_is_called_missed() -> None:
    made = copy.deepcopy(made_up())
    made["suites"]["arrays"]["rows"][0] |= {"median": 700.0}
    assert "| 2.80 times | **missed** |" in table.tables([made])
    assert "| Somebody | 2.1 (arrays: 224x224, batch 32, float32) |" in table.figures([made])


def test_a_gpu_round_has_its_own_targets_and_checks() -> None:
    made = made_up("cuda")
    environment = made["suites"]["arrays"]["environment"]
    made["checks"] = {"tests": {"ok": False, "said": "1 failed", "took_s": 2.0, "environment": environment}}
    text = table.tables([made])
    assert "GPU round has not run" not in text
    assert "- tests: **FAILED** in 2 s: 1 failed" in text
    assert "| fused kernel, batch of 256, float32, channels_first |" in text
    assert "| RandAugment(2, 9), batch of 256, 224x224, time on the device | at most 250 us | not measured |" in text


def test_randaugment_on_a_gpu_is_compared_with_the_best_peer_there() -> None:
    made, case = made_up("cuda"), modern_on_gpu.case_name("RandAugment(2, 9)")
    figures = {
        "gpuseq, GPU, iterator": 900,
        "gpuseq, GPU, Compose": 9000,
        "Somebody, batch": 100,
        "Somebody, sample": 10,
    }
    rows = [row("modern", case, name, "img/s", [value]) for name, value in figures.items()]
    rows.append(row("modern", case, "Nobody", "img/s", absent="failed: RuntimeError: out of memory"))
    made["suites"]["modern"] = made["suites"]["arrays"] | {"rows": rows}
    kernel = row("kernel", "batch 256, 224x224x3 uint8", "RandAugment(2, 9)", "us", [240])
    made["suites"]["kernel"]["rows"].append(kernel)
    text = table.tables([made])
    what = "RandAugment(2, 9), batch of 256, 224x224"
    assert f"| {what}, time on the device | at most 250 us | 240 us | met |" in text
    wanted = "at least 10 times the fastest peer | 9.00 times (Somebody, batch) | **missed** |"
    assert f"| {what}, through the iterator | {wanted}" in text
    assert "### The modern augmentations of a batch that is on the GPU\n\n**RandAugment(2, 9), batch of 256" in text
    assert "| Nobody | failed | | failed: RuntimeError: out of memory |" in text
    assert "modern" not in text.partition("### Where another library is faster")[2].partition("###")[0]


def test_a_busy_machine_is_marked() -> None:
    made = made_up()
    assert "busy" not in table.tables([made]) + table.figures([made])
    made["suites"]["arrays"]["environment"]["others_busy"] = 0.5
    assert "up to 50 % of its cores" in table.tables([made])
    assert "busy with other work" in table.figures([made])


def test_trials_are_marked() -> None:
    assert "its figures mean nothing" in table.tables([made_up() | {"smoke": True}])


def test_text_goes_between_the_markers_and_nowhere_else() -> None:
    before = "a\n<!-- x:start -->\nold\n<!-- x:end -->\nb\n"
    assert table.replace_between(before, "x", "new\n") == "a\n<!-- x:start -->\nnew\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="exactly one pair"):
        table.replace_between("nothing", "x", "new")


def test_plots_are_drawn_to_scale() -> None:
    drawn = table.plots([made_up()])
    assert {path.name for path in drawn} == {"cpu-batch-size.svg", "cpu-arrays.svg"}
    for text in drawn.values():
        ElementTree.fromstring(text)
    tree = ElementTree.fromstring(bars("t", "img/s", {"a": (10.0, 9.0, 11.0), "b": (20.0, 20.0, 20.0)}))
    widths = [float(item.attrib["width"]) for item in tree.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.1)


def test_a_line_that_doubles_rises_evenly() -> None:
    tree = ElementTree.fromstring(lines("t", "x", "y", {"a": [(1, 10), (2, 20), (4, 40)]}))
    at = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in tree.iter("{http://www.w3.org/2000/svg}circle")]
    assert at[1][0] - at[0][0] == pytest.approx(at[2][0] - at[1][0], abs=0.2)
    assert at[0][1] - at[1][1] == pytest.approx(at[1][1] - at[2][1], abs=0.2)


def test_the_documentation_holds_what_the_result_files_say() -> None:
    files = sorted(results.RESULTS.glob("*.json"))
    assert files, "no committed results"
    assert table.write_tables([results.read(file) for file in files], check=True) == []


# What is slow, or hangs.


def test_the_network_that_is_fed_learns_in_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.suites.networks import resnet50

    with torch.autocast("cpu", torch.bfloat16):
        network = resnet50(10)
        network(torch.ones(2, 3, 32, 32)).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert len(gradients) > 100
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_contender_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "OPENING_S", 0.3)
    monkeypatch.setattr(Worker, "hear", lambda worker, limit=0.3, hear=Worker.hear: hear(worker, 0.3))
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", "1")
    found = race("arrays", "tiny", [Runner("keras", "Slow", {"size": 24, "batch": 4, "samples": 12})], QUICK)
    assert found[0]["absent"] == "failed: no answer within 0 s"


def test_what_is_late_is_not_begun() -> None:
    late = Settings(seconds=0.02, rounds=2, peers=(), smoke=True, deadline=0.0, say=lambda text: None)
    found = suite("arrays")(late)
    assert {item["absent"] for item in found} == {OUT_OF_TIME}
    made = made_up("cuda")
    assert results.is_complete(made, "arrays")
    made["suites"]["arrays"]["rows"] = found
    assert not results.is_complete(made, "arrays")
