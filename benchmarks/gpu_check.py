"""One command for a machine with a GPU: does everything hold there, and how fast is it?

    python -m benchmarks.gpu_check --out DIR

Nothing is installed or downloaded, and it ends within eight minutes. Each step is a process of its
own with a time limit; one that fails, hangs or crashes does not stop the next. DIR gets
`summary.md`, `gpu_check.json`, `log.txt` and the files of the steps. The exit status is 0 if
nothing failed, 1 if something did, 2 if there is no GPU that CuPy can use.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .devices import NO_GPU, STAND_IN, stands_in
from .timing import ROOT, usable_cores

PASSED, FAILED, SKIPPED, REFUSED = "passed", "failed", "skipped", "refused"
PRETEND = ROOT / "tests" / "pretend"
#: What a step may leave in DIR, besides the summary, its numbers and the log: eight files in all.
FILES = (
    "cupy_contract.json", "agreement.json", "agreement.png", "benchmark.json", "benchmark.png",
)  # fmt: skip
LARGEST = 15 * 2**20  # bytes of a file
PACKAGES = (
    "numpy", "cupy", "pytest", "hypothesis", "safetensors", "matplotlib", "torch", "jax",
)  # fmt: skip


@dataclass
class Outcome:
    """What came of a step: a status, a sentence, findings for the summary, numbers for the JSON."""

    status: str
    line: str
    findings: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    limit: float = 0.0


@dataclass
class Task:
    """What a step is told: where it may write, how long it may take, how much it should do."""

    name: str
    scratch: Path
    seconds: float
    quick: bool = False
    pretend: bool = False  # whether the tests' stand-in may take CuPy's place
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Give the seconds that are left."""
        return self.seconds - (time.monotonic() - self.began)

    def note(self, outcome: Outcome) -> None:
        """Write down how far the step has come: it stands if the step ends too early."""
        place = self.scratch / f"{self.name}.outcome"
        place.with_suffix(".new").write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        place.with_suffix(".new").replace(place)

    def command(self, step: str, seconds: float) -> list[str]:
        """Give the command that runs another step with the same settings."""
        return own_command(step, self.scratch, seconds, self.quick, self.pretend)


def own_command(step: str, scratch: Path, seconds: float, quick: bool, pretend: bool) -> list[str]:
    """Give the command that runs one step in a process of its own."""
    return [
        sys.executable, "-m", "benchmarks.gpu_check", "--step", step, "--scratch", str(scratch),
        "--seconds", f"{seconds:.0f}", *(["--quick"] if quick else []),
        *(["--pretend"] if pretend else []),
    ]  # fmt: skip


# ------------------------------------------------------------------------------ the environment


def environment(task: Task) -> Outcome:
    """Describe device, driver and versions; refuse where CuPy cannot compute."""
    import microgradnd as mg

    from .devices import describe
    from .timing import machine

    state = mg.backend.available()["cupy"]
    if state != "ok":
        return Outcome(REFUSED, state)
    if pretended() and not task.pretend:
        return Outcome(REFUSED, NO_GPU)
    module: Any = mg.backend.named("cupy").module  # type: ignore[attr-defined]
    device = describe(module)
    off = product_error()
    packages = {name: version_of(name) for name in PACKAGES}
    numbers = {
        "machine": machine(), "device": device, "packages": packages,
        "error of a float32 product": off, "commit": commit(),
    }  # fmt: skip
    missing = [name for name, version in packages.items() if version is None]
    findings = [f"not installed: {', '.join(missing)}"] if missing else []
    line = f"{device['name']}, CuPy {module.__version__}, CUDA {device['CUDA of the driver']}"
    if pretended():
        line = "the tests' stand-in for CuPy, on the CPU: NO GPU was used"
    if off > 1e-5:
        findings.append(
            f"products of float32 are off by {off:.0e} of their size, as with TF32; unset "
            "CUPY_TF32 and NVIDIA_TF32_OVERRIDE: the comparisons need full float32"
        )
        return Outcome(FAILED, line, findings, numbers)
    return Outcome(PASSED, line, findings, numbers)


def pretended() -> bool:
    """Whether `cupy` is the stand-in of the tests."""
    import microgradnd as mg

    module: Any = mg.backend.named("cupy").module  # type: ignore[attr-defined]
    return stands_in(module.__version__)


def product_error() -> float:
    """Give how far float32 products on the device are from float64's, of the largest element."""
    import numpy as np

    import microgradnd as mg

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 256, 256)).astype("float32")
    with mg.backend.use("cupy"):
        got = (mg.tensor(x) @ mg.tensor(y)).numpy()
    want = x.astype("float64") @ y.astype("float64")
    return float(np.abs(got - want).max() / np.abs(want).max())


def version_of(package: str) -> str | None:
    """Give an installed package's version, None if it is missing; several wheels are CuPy's."""
    names = ("cupy", "cupy-cuda13x", "cupy-cuda12x") if package == "cupy" else (package,)
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def commit() -> str:
    """Give the commit of the checkout, or "unknown"."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


# ------------------------------------------------------------------------------ the test suite

#: Tests made for any device: they run with CuPy in the place of the stand-in.
ON_DEVICE = {"tests/test_device_registry.py": 4, "tests/test_device_training.py": 2}  # shards
#: Tests that hold as they stand where `MICROGRADND_BACKEND=cupy`, and what to leave out of them:
#: these mix in raw arrays of the host, compare what is rounded bit for bit, or need every warning
#: to be an error.
AS_THEY_STAND: dict[str, tuple[str, ...]] = {
    "tests/test_train.py": ("test_functions_lists_of_batches_and_several_inputs",),
    "tests/test_optim_reference.py": (),
    "tests/test_random.py": ("test_shapes",),
    "tests/test_data.py": ("test_a_dataset_gives_tuples_of_rows",),
    "tests/test_io.py": (
        "test_loading_fills_what_is_given_and_gives_back_the_rest",
        "test_nothing_is_ever_unpickled_or_run",
    ),
    "tests/test_testing.py": ("test_an_error_in_one_element_of_many_turns_red",),
    "tests/test_activations.py": (
        "test_maxout_second_order", "test_softmax_with_infinities",
    ),
    "tests/test_nn_reference.py": (),
    "tests/test_edges.py": ("test_means_of_more_than_float16_can_count",),
    "tests/test_trace.py": (
        "test_the_table_can_be_recomputed_by_hand", "test_operands_that_are_no_tensors",
        "test_the_trace_pins_no_memory", "test_the_where_that_does_not_select_it",
        "test_the_public_names_are_functions_whatever_was_imported_first",
        "test_a_nan_that_enters_is_named_where_it_enters",
    ),
}  # fmt: skip

#: What `mg.save` says without its package: the fault of the machine, not of the test.
NEEDS = "needs safetensors"
#: What of the first is run with `--quick`, and which file of the second.
QUICK, QUICK_FILE = "tanh or every_optimizer or shares", "tests/test_edges.py"


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Keep one shard of the tests: this module is a plugin of the pytest that it starts."""
    number, of = map(int, os.environ.get("MICROGRADND_SHARD", "0/1").split("/"))
    config.hook.pytest_deselected(items=[x for i, x in enumerate(items) if i % of != number])
    items[:] = items[number::of]


def suite_jobs(scratch: Path, bare: bool, quick: bool) -> dict[str, tuple[list[str], Any]]:
    """Give the pytest runs by name: a command and its environment."""
    base = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "-p", "benchmarks.gpu_check",
        "-W", "default",  # CuPy's own warnings are no errors of ours
        "-m", "not slow", "--tb=short",
    ]  # fmt: skip
    jobs: dict[str, tuple[list[str], Any]] = {}

    def add(path: str, shard: str, out: Sequence[str], options: Sequence[str], **env: str) -> None:
        name = Path(path).stem + ("" if shard == "0/1" else f" {shard}")
        xml = scratch / f"{re.sub('[^a-z0-9_]', '-', name)}.xml"
        left_out = [x for test in out for x in ("--deselect", f"{path}::{test}")]
        command = [*base, f"--junitxml={xml}", path, *left_out, *options]
        threads = {"OPENBLAS_NUM_THREADS": "1"}  # there are many processes
        jobs[name] = command, env | threads | {"MICROGRADND_SHARD": shard, "XML": str(xml)}

    for path, shards in ON_DEVICE.items():
        options = []
        if quick:
            shards, options = 1, ["-k", QUICK]
        for i in range(shards):
            add(path, f"{i}/{shards}", (), options, MICROGRADND_TEST_DEVICE="cupy")
    for path, out in {} if bare else AS_THEY_STAND.items():
        if not quick or path == QUICK_FILE:
            add(path, "0/1", out, [], MICROGRADND_BACKEND="cupy")
    return jobs


def suite(task: Task) -> Outcome:
    """Run the test suite on CuPy, several processes at a time."""
    if importlib.util.find_spec("pytest") is None:
        return Outcome(SKIPPED, "pytest is not installed")
    bare = importlib.util.find_spec("hypothesis") is None
    waiting = suite_jobs(task.scratch, bare, task.quick)
    running: dict[str, tuple[Any, Any]] = {}
    counts: Counter[str] = Counter()
    findings, failures, reasons = [], [], Counter[str]()
    if bare:
        findings.append("hypothesis is not installed: only the tests of the device were run")
    all_jobs, workers = dict(waiting), max(1, min(12, usable_cores() * 3 // 4))
    unfinished: list[str] = []
    while waiting or running:
        while waiting and len(running) < workers:
            name = next(iter(waiting))
            command, env = waiting.pop(name)
            log = (task.scratch / f"{Path(env['XML']).stem}.log").open("w+", encoding="utf-8")
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | env, stdout=log, stderr=subprocess.STDOUT,
                preexec_fn=heed_interrupts if os.name == "posix" else None,
            )  # fmt: skip
            running[name] = process, log
        time.sleep(0.05)
        late = task.left() < 10
        if late:  # pytest writes what it has
            unfinished += [*running, *waiting]
            stop([process for process, _ in running.values()])
        for name, (process, log) in list(running.items()):
            if process.poll() is None and not late:
                continue
            del running[name]
            log.seek(0)
            text = log.read()
            log.close()
            print(f"--- {name}\n{text[-200_000:]}", flush=True)
            found = read_junit(Path(all_jobs[name][1]["XML"]), counts, failures, reasons)
            if not found and name not in unfinished:
                end = text.strip().splitlines()[-1:] or ["nothing was said"]
                failures.append(f"{name}: pytest ended with {process.returncode}: {end[0]}")
        if late:
            break
    failures += [f"{name}: not done in time" for name in unfinished]
    findings += failures[:60] + [f"{len(failures) - 60} more"] * (len(failures) > 60)
    findings += [f"skipped, {n} tests: {why}" for why, n in reasons.most_common(20)]
    line = ", ".join(f"{counts[key]} {key}" for key in (PASSED, FAILED, SKIPPED))
    numbers = {**counts, "files": sorted({*ON_DEVICE, *({} if bare else AS_THEY_STAND)})}
    return Outcome(FAILED if failures else PASSED, f"{line} on the device", findings, numbers)


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs: they and their children ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(processes: Sequence[Any], seconds: float = 5.0) -> None:
    """Interrupt processes as a keyboard does, and kill those that go on."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    end = time.monotonic() + seconds
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(end - time.monotonic(), 0.01))
        process.kill()
        process.wait()


def read_junit(
    path: Path, counts: Counter[str], failures: list[str], reasons: Counter[str]
) -> bool:
    """Add what pytest wrote about one run; gives whether it wrote anything."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return False
    for case in cases:
        if case.get("name") is None:  # the one that was interrupted
            continue
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if bad is not None and NEEDS in (bad.get("message") or ""):
            counts[SKIPPED] += 1
            reasons["safetensors is not installed"] += 1
        elif bad is not None:
            counts[FAILED] += 1
            failures.append(f"{name}: {shorten(bad.get('message') or '')}")
        elif skipped is not None:
            counts[SKIPPED] += 1
            reasons[shorten(skipped.get("message") or "")] += 1
        else:
            counts[PASSED] += 1
    return True


def shorten(text: str, length: int = 200) -> str:
    """Give the beginning of a text in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


# ------------------------------------------------------------------------------ the contract


def contract(task: Task) -> Outcome:
    """Write the contract file anew from the CuPy that is here; list what differs."""
    script = ROOT / "tests" / "data" / "make_cupy_contract.py"
    kept = script.with_name("cupy_contract.json")
    if not script.exists() or not kept.exists():
        return Outcome(SKIPPED, f"{script.name} or {kept.name} is not in this checkout")
    if pretended():
        return Outcome(SKIPPED, "this is the stand-in: CuPy itself must be asked")
    out = task.scratch / "cupy_contract.json"
    command = [sys.executable, str(script), "--out", str(out)]
    ending = "ended with status {}"
    try:
        status: int | None = subprocess.run(command, cwd=ROOT, timeout=task.left() - 5).returncode
        ending = ending.format(status)
    except subprocess.TimeoutExpired:
        status, ending = None, "came to no end in its time"
    if not out.exists():
        return Outcome(FAILED, f"{script.name} {ending}")
    mine, theirs = (lines_of(json.loads(path.read_text("utf-8"))) for path in (out, kept))
    answered = {s for s, line in mine.items() if re.match("CuPy .* on ", line.get("source", ""))}
    lines = [
        f"`{snippet}`: {shorten(said)}, committed is {shorten(was)}"
        for snippet in {**theirs, **mine}
        for said, was in [[str(of.get(snippet, {"outcome": "not there"})["outcome"])
                           for of in (mine, theirs)]]
        if said != was
    ]  # fmt: skip
    if status != 0 or len(answered) < len(mine):
        line = f"{len(answered)} of {len(mine)} lines were answered, {len(lines)} differ"
        return Outcome(FAILED, line + (f"; {script.name} {ending}" if status != 0 else ""), lines)
    if lines:
        return Outcome(FAILED, f"{len(lines)} of {len(mine)} lines are not as committed", lines)
    return Outcome(PASSED, f"all {len(mine)} lines are as committed")


def lines_of(data: Any) -> dict[str, Any]:
    """Give the lines of a contract file by their snippets."""
    return {line["snippet"]: line for line in data.get("lines", ())}


# ------------------------------------------------------------------------------ training


def determinism(task: Task) -> Outcome:
    """Train twice in one process and twice in fresh ones; compute operations several times."""
    from . import agreement as models

    steps = 3 if task.quick else 50
    prints, where = {}, {}
    for name in models.MODELS:
        one, two = (models.train(name, "float32", steps, "cupy") for _ in range(2))
        prints[name], where[name] = one.fingerprint(), models.unlike(one, two)
        print(name, prints[name], where[name] or "equal", flush=True)
    unsteady = models.unsteady_operations("cupy", 500 if task.quick else 20_000)
    fresh: list[dict[str, str]] = []
    for i in (1, 2):
        place = task.scratch / f"fresh{i}"
        place.mkdir(exist_ok=True)
        command = own_command("fresh", place, task.left(), task.quick, task.pretend)
        subprocess.run(command, cwd=ROOT, check=True)
        outcome = json.loads((place / "fresh.outcome").read_text(encoding="utf-8"))
        fresh.append(outcome["numbers"]["prints"])
    return judge(steps, prints, where, fresh, unsteady)


def fresh(task: Task) -> Outcome:
    """Train every model once, for `determinism`, which asks for it in fresh processes."""
    from . import agreement as models

    steps = 3 if task.quick else 50
    prints = {
        name: models.train(name, "float32", steps, "cupy").fingerprint() for name in models.MODELS
    }
    return Outcome(PASSED, "trained", numbers={"prints": prints})


def judge(
    steps: int, prints: dict[str, str], where: dict[str, str], fresh: list[dict[str, str]],
    unsteady: list[str],
) -> Outcome:  # fmt: skip
    """Say what was not the same twice; what adds by atomic operations is expected to differ."""
    from . import agreement as models

    findings, wrong, equal = [], 0, 0
    for name in prints:
        text = f"twice in one process: {where[name]}" if where[name] else ""
        if not text and len({prints[name], *(run[name] for run in fresh)}) > 1:
            text = "a fresh process gives other bits"
        if text:
            findings.append(f"{expected(name in models.ATOMIC)}: the model {name!r}, {text}")
            wrong += name not in models.ATOMIC
        equal += not text
    for name in unsteady:
        atomic = models.OPERATIONS[name][0]
        findings.append(f"{expected(atomic)}: the operation {name!r} on the same numbers")
        wrong += not atomic
    line = f"{equal} of {len(prints)} models train to equal bits in {steps} steps, "
    line += f"{len(models.OPERATIONS) - len(unsteady)} of {len(models.OPERATIONS)} operations are"
    numbers = {"fingerprints": prints, "fresh": fresh, "operations that differ": unsteady}
    return Outcome(FAILED if wrong else PASSED, f"{line} repeatable", findings, numbers)


def expected(atomic: bool) -> str:
    """Say how to take it that something is not the same twice."""
    return "expected (sums by atomic operations)" if atomic else "NOT expected to differ"


def agreement(task: Task) -> Outcome:
    """Train every model on the CPU and on the GPU, in both precisions, and compare the losses."""
    from . import agreement as models

    steps = 10 if task.quick else 200
    found: dict[str, dict[str, Any]] = {}
    rows: list[str] = []

    def note(name: str, dtype: str, result: dict[str, Any]) -> None:
        found.setdefault(name, {})[dtype] = result
        above = {mark: step for mark, step in result["first above"].items() if step}
        passes = "".join(f", above {mark} from step {step}" for mark, step in above.items())
        rows.append(
            f"{name}, {dtype}: losses differ by at most {result['largest']:.1e} (float32 and "
            f"float64 on the CPU: {result['of rounding']:.1e}), weights by "
            f"{result['weights']:.1e}{passes}"
        )
        print(rows[-1], flush=True)
        (task.scratch / "agreement.json").write_text(
            json.dumps({"steps": steps, "early": models.EARLY, "limits": models.LIMITS,
                        "results": found}) + "\n", encoding="utf-8")  # fmt: skip
        done = Outcome(FAILED, f"{len(rows)} trainings compared, then it ended", rows)
        task.note(done)

    wrong = models.agreement(steps, "cupy", note)
    try:
        device = STAND_IN if pretended() else "the device"
        models.picture(found, str(task.scratch / "agreement.png"), device)
    except ImportError:
        rows.append("no picture: matplotlib is not installed")
    total = sum(map(len, found.values()))
    line = f"{total - len(wrong)} of {total} trainings of {steps} steps agree with the CPU's"
    findings = [f"TOO FAR APART: {text}" for text in wrong] + rows
    return Outcome(FAILED if wrong else PASSED, line, findings)


# ------------------------------------------------------------------------------ the sanitizer


def sanitizer(task: Task) -> Outcome:
    """Run a short training under compute-sanitizer: wrong addresses, then races."""
    tool = find_sanitizer()
    if tool is None:
        return Outcome(SKIPPED, "compute-sanitizer is neither on PATH nor in CUDA_PATH")
    findings, lines, wrong, ended = [], [], False, True
    for i, check in enumerate(("memcheck", "racecheck")):
        command = [tool, "--tool", check, "--error-exitcode", "99", "--print-limit", "20"]
        limit = (task.left() - 4) / (2 - i)
        try:
            done = subprocess.run(
                [*command, *task.command("short", limit)], cwd=ROOT, timeout=limit,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            lines.append(f"{check}: no end within {limit:.0f} s")
            ended = False
            continue
        print(done.stdout, flush=True)
        said = [x.strip("= ") for x in done.stdout.splitlines() if "SUMMARY" in x]
        lines.append(f"{check}: {said[-1] if said else f'no summary, status {done.returncode}'}")
        if done.returncode or not said:
            wrong = True
            findings += [f"{check}: {x.strip('= ')}" for x in done.stdout.splitlines()
                         if x.startswith("=========") and len(x) > 12][:20]  # fmt: skip
    status = FAILED if wrong else PASSED if ended else SKIPPED
    return Outcome(status, "; ".join(lines), findings)


def find_sanitizer() -> str | None:
    """Find compute-sanitizer on PATH or in the toolkit that CUDA_PATH names."""
    toolkit = Path(os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    path = os.pathsep.join([os.environ.get("PATH", ""), str(toolkit / "bin")])
    return shutil.which("compute-sanitizer", path=path)


def short(task: Task) -> Outcome:
    """Train three steps of two models, each array in its own allocation: for the sanitizer."""
    import microgradnd as mg

    from . import agreement as models

    module: Any = mg.backend.named("cupy").module  # type: ignore[attr-defined]
    if not pretended():
        module.cuda.set_allocator(None)  # a pool would hide an overrun into a neighbour
    for name in ("maxout and dropout", "embedding"):
        models.train(name, "float32", 3, "cupy")
    return Outcome(PASSED, "trained")


# ------------------------------------------------------------------------------ exchange


def exchange(task: Task) -> Outcome:
    """Exchange arrays on the device with PyTorch and JAX by DLPack, without a copy."""
    peers: dict[str, Callable[[], list[str]]] = {"torch": with_torch, "jax": with_jax}
    findings, said = [], []
    for name, check in peers.items():
        if importlib.util.find_spec(name) is None:
            said.append(f"{name}: not installed")
            continue
        try:
            wrong = check()
        except NoDeviceError as error:
            said.append(f"{name}: {error}")
            continue
        except Exception as error:  # a peer may fail in any way, and the other one is still asked
            wrong = [f"{type(error).__name__}: {shorten(str(error))}"]
        findings += [f"{name}: {text}" for text in wrong]
        said.append(f"{name}: {'FAILED' if wrong else 'the same memory in both directions'}")
    status = FAILED if findings else PASSED if any("same memory" in x for x in said) else SKIPPED
    return Outcome(status, "; ".join(said), findings)


class NoDeviceError(Exception):
    """A peer is installed, but sees no GPU."""


def with_torch() -> list[str]:
    """Exchange with PyTorch; gives what is wrong."""
    import torch

    import microgradnd as mg

    if not torch.cuda.is_available():
        raise NoDeviceError("installed, but it sees no GPU")
    theirs = torch.arange(6, dtype=torch.float32, device="cuda").reshape(2, 3)
    mine = mg.from_dlpack(theirs)
    wrong = unshared(mine, theirs.data_ptr(), "from PyTorch")
    theirs += 1.0
    torch.cuda.synchronize()
    if mine.tolist() != [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]:
        wrong.append(f"from PyTorch: what it writes is not seen, got {mine.tolist()}")
    with mg.backend.use("cupy"):
        ours = mg.tensor([1.0, 2.0])
    back = torch.from_dlpack(ours)
    wrong += unshared(ours, back.data_ptr(), "to PyTorch")
    if back.tolist() != [1.0, 2.0]:
        wrong.append(f"to PyTorch: got {back.tolist()}")
    return wrong


def with_jax() -> list[str]:
    """Exchange with JAX; gives what is wrong."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    import microgradnd as mg

    if jax.default_backend() != "gpu":
        raise NoDeviceError("installed, but it sees no GPU")
    theirs = jax.numpy.arange(6, dtype="float32").reshape(2, 3) + 1.0
    theirs.block_until_ready()
    mine = mg.from_dlpack(theirs)
    wrong = unshared(mine, theirs.unsafe_buffer_pointer(), "from JAX")
    if mine.tolist() != [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]:
        wrong.append(f"from JAX: got {mine.tolist()}")
    with mg.backend.use("cupy"):
        ours = mg.tensor([1.0, 2.0])
    back = jax.dlpack.from_dlpack(ours)
    wrong += unshared(ours, back.unsafe_buffer_pointer(), "to JAX")
    if back.tolist() != [1.0, 2.0]:
        wrong.append(f"to JAX: got {back.tolist()}")
    return wrong


def unshared(tensor: Any, pointer: int, which: str) -> list[str]:
    """Say if a tensor's array does not begin at an address."""
    mine = tensor.data.data.ptr
    return [] if mine == pointer else [f"{which}: copied, {mine:#x} is not {pointer:#x}"]


# ------------------------------------------------------------------------------ the benchmark


def benchmark(task: Task) -> Outcome:
    """Run the benchmark in what is left of the time."""
    results, picture = (task.scratch / f"benchmark.{end}" for end in ("json", "png"))
    command = [sys.executable, "-m", "benchmarks", "--json", str(results)]
    command += ["--picture", str(picture), "--minutes", f"{max(task.left() - 15, 1) / 60:.2f}"]
    command += [f"--{name}" for name in ("quick", "pretend") if getattr(task, name)]
    status = subprocess.run(command, cwd=ROOT).returncode
    if not results.exists():
        return Outcome(FAILED, f"python -m benchmarks ended with status {status}, and no results")
    return measured(json.loads(results.read_text(encoding="utf-8")), status)


def measured(result: dict[str, Any], status: int) -> Outcome:
    """Say how much the benchmark has measured on the device, and which rows failed."""
    rows = result["rows"]
    done = [row for row in rows if row["cells"].get("cupy")]
    findings = [f"{row['kind']}, {row['name']}: {row['errors']}" for row in rows if row["errors"]]
    findings += [f"an empty column, {name}: {why}" for name, why in result["empty"].items()]
    if status:
        findings.append(f"python -m benchmarks ended with status {status}: see the log")
    line = f"{len(done)} of {len(rows)} rows were timed on the device: see benchmark.json"
    return Outcome(PASSED if done and not status else FAILED, line, findings)


# ------------------------------------------------------------------------------ the command

#: Every step and the seconds it may take; what one leaves over goes to the next.
STEPS: dict[str, tuple[float, Callable[[Task], Outcome]]] = {
    "environment": (30, environment),
    "determinism": (45, determinism),
    "agreement": (55, agreement),
    "exchange": (15, exchange),
    "sanitizer": (40, sanitizer),
    "suite": (130, suite),
    "contract": (75, contract),  # its kernels are compiled by then
    "benchmark": (85, benchmark),
}
#: Parts of steps that need a process of their own.
PARTS: dict[str, Callable[[Task], Outcome]] = {"fresh": fresh, "short": short}


def follow(command: Sequence[str], log: Path, limit: float, env: Any = None) -> int | None:
    """Run a command to its end or for so many seconds; gives its status, None if it was stopped.

    It and all its children are stopped; Python says first where it was.
    """
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # Python's fault handler prints the stack
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_step(name: str, command: Sequence[str], scratch: Path, limit: float, env: Any) -> Outcome:
    """Run a step's process; gives what it wrote down, or why it did not."""
    began = time.monotonic()
    log = scratch / f"{name}.log"
    status = follow(command, log, limit, env)
    try:
        text = (scratch / f"{name}.outcome").read_text(encoding="utf-8")
        outcome = Outcome(**json.loads(text))
    except (OSError, ValueError, TypeError):
        outcome = Outcome(FAILED, "no result")
    if status != 0:
        why = f"no end within {limit:.0f} s" if status is None else f"it ended with status {status}"
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        outcome.status, outcome.line = FAILED, f"{why}: {outcome.line}"
        outcome.findings += [f"its last words: {shorten(said[-1])}"] if said else []
    outcome.seconds, outcome.limit = time.monotonic() - began, limit
    return outcome


def settings(scratch: Path, pretend: bool) -> dict[str, str]:
    """Give the environment of the steps."""
    env = dict(os.environ)
    env.pop("MICROGRADND_BACKEND", None)
    path = [str(ROOT), *([str(PRETEND)] if pretend else []), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    env["PYTHONFAULTHANDLER"] = "1"
    env["MPLBACKEND"] = "Agg"
    env.setdefault("MPLCONFIGDIR", str(scratch / "matplotlib"))
    env.setdefault("CUPY_CACHE_DIR", str(scratch / "kernels"))
    return env


def clean(text: str, scratch: Path) -> str:
    """Take this machine's paths out of a text."""
    for path, name in (scratch, "SCRATCH"), (ROOT, "."), (Path.home(), "~"):
        text = text.replace(str(path), name)
    return text


def summary(outcomes: dict[str, Outcome], wanted: Sequence[str], seconds: float) -> str:
    """Give the report: a table of the steps, then their findings."""
    lines = ["# Check on a GPU", ""]
    first = outcomes.get("environment")
    if first is not None:
        lines += [first.line + ".", ""]
    lines += ["| step | result | seconds | |", "|---|---|---:|---|"]
    for name in wanted:
        o = outcomes.get(name)
        cells = (o.status, f"{o.seconds:.0f}", o.line) if o else ("not yet run", "", "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"{seconds:.0f} s in all."]
    for name, o in outcomes.items():
        if o.findings:
            lines += ["", f"## {name}", "", *(f"- {text}" for text in o.findings)]
    if first is not None and first.numbers:
        told = json.dumps(first.numbers, indent=1, default=str)
        lines += ["", "## The machine", "", "```json", told, "```"]
    return "\n".join(lines) + "\n"


def write(
    out: Path, scratch: Path, outcomes: dict[str, Outcome], wanted: Sequence[str], seconds: float
) -> None:
    """Write everything that is known so far into the folder."""
    texts = {
        "summary.md": summary(outcomes, wanted, seconds),
        "gpu_check.json": json.dumps({k: asdict(v) for k, v in outcomes.items()}, indent=1) + "\n",
        "log.txt": "".join(f"===== {name}\n{tail(scratch / f'{name}.log')}\n" for name in outcomes),
    }
    for name, text in texts.items():
        (out / name).write_text(clean(text, scratch), encoding="utf-8")
    for name in FILES:
        path = scratch / name
        if path.exists() and path.stat().st_size <= LARGEST:
            shutil.copyfile(path, out / name)


def tail(path: Path, length: int = 1_500_000) -> str:
    """Give a log, without the middle of a long one."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if len(text) <= length:
        return text
    return f"{text[: length // 3]}\n[... left out ...]\n{text[-2 * length // 3 :]}"


def check(options: argparse.Namespace) -> int:
    """Run the steps one after the other, and write the report after each."""
    wanted = [name for name in STEPS if options.only is None or name in options.only]
    with suppress(ImportError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # a crash leaves no file in here
    out, outcomes, began = Path(options.out), dict[str, Outcome](), time.monotonic()
    scale = options.seconds / sum(seconds for seconds, _ in STEPS.values())
    deadline = began + scale * sum(STEPS[name][0] for name in wanted)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        env = settings(scratch, options.pretend)
        for i, name in enumerate(wanted):
            later = scale * sum(STEPS[other][0] for other in wanted[i + 1 :])
            limit = max(deadline - later - time.monotonic(), 1.0)
            command = own_command(name, scratch, limit, options.quick, options.pretend)
            outcomes[name] = outcome = run_step(name, command, scratch, limit, env)
            told = f"{outcome.status:8} {outcome.seconds:4.0f} s  {outcome.line}"
            print(f"{name:12} {told}", flush=True)
            if outcome.status == REFUSED:
                print(f"There is no GPU to check: {outcome.line}", file=sys.stderr)
                return 2
            out.mkdir(parents=True, exist_ok=True)
            write(out, scratch, outcomes, wanted, time.monotonic() - began)
    return int(any(outcome.status == FAILED for outcome in outcomes.values()))


def step(options: argparse.Namespace) -> int:
    """Run one step in this process."""
    scratch = Path(options.scratch)
    task = Task(options.step, scratch, options.seconds, options.quick, options.pretend)
    function = PARTS.get(options.step) or STEPS[options.step][1]
    task.note(function(task))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Check the GPU of this machine; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="where the report goes")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--seconds", type=float, default=460, help="the time for all (%(default)s)")
    parser.add_argument("--pretend", action="store_true", help=argparse.SUPPRESS)  # for tests
    parser.add_argument("--step", choices=[*STEPS, *PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.step:
        return step(options)
    if not options.out:
        parser.error("--out DIR is needed")
    if options.only and "environment" not in options.only:
        options.only.insert(0, "environment")
    return check(options)


if __name__ == "__main__":
    sys.exit(main())
