"""The list of checks, and the loop that runs them."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from lmzoo import configs
from lmzoo.conformance import (
    batching,
    capture,
    causality,
    contract,
    copies,
    counting,
    decoding,
    initial,
    long,
    loss,
    meta,
    modes,
    numerics,
    offers,
    own,
    purity,
    reach,
    receptive,
    roles,
    saving,
    settings,
    states,
    transferable,
    tying,
)
from lmzoo.conformance import training as train
from lmzoo.conformance.beside import Beside
from lmzoo.conformance.consequences import cause_of
from lmzoo.conformance.fresh import FreshProcess, can_be_imported
from lmzoo.conformance.report import RANKING_GROUPS, Fault, Report, Result, raised_at
from lmzoo.conformance.tiny import Subject, subject
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel


@dataclass(frozen=True)
class Check:
    """One check: `run` returns a summary or raises `Fault`; with `variants` it also runs on `Subject.varied`."""

    name: str
    group: str
    run: Callable[[Subject], str]
    variants: bool = False

    @property
    def needs_instance(self) -> bool:
        """True if the check looks at the caller's own model, and so does not run for a class or a name."""
        return self.run.__module__ == own.__name__


def _checks(group: str, *functions: Callable[[Subject], str], variants: bool = False) -> list[Check]:
    return [Check(function.__name__, group, function, variants) for function in functions]


# Each variant costs as much as the plain config. So variants run only in quick checks, and in checks of code that most
# often depends on an option (positions, the state, the formula for FLOPs).
CHECKS: tuple[Check, ...] = (
    *_checks("contract", contract.construction, contract.finals, contract.shapes, contract.edges),
    # All comparisons of logits presume these four. They run first: a report looks for causes in earlier failures only.
    *_checks("counts", counting.parameters),
    *_checks("settings", roles.roles),
    *_checks("purity", purity.same_seed, purity.global_state),
    *_checks("batch", batching.batch_independence),
    *_checks("causality", causality.causality, causality.gradient_causality, variants=True),
    *_checks("causality", causality.bfloat16_causality, variants=True),
    *_checks("causality", long.long_causality, own.own_causality),
    *_checks("past", receptive.receptive_field, variants=True),
    *_checks("past", own.own_receptive_field),
    *_checks("decoding", states.state_dtype),
    *_checks("decoding", decoding.decoding, variants=True),
    *_checks("decoding", long.random_shapes, long.long_decoding, own.own_decoding, states.max_len),
    *_checks("decoding", states.state_is_a_value, states.state_rows, states.state_saved),
    *_checks("decoding", contract.generation, copies.decoding_copies),
    *_checks("batch", batching.prompt_lengths),
    *_checks("loss", loss.loss_value, loss.ignored_targets, loss.micro_batches, loss.chunked_loss),
    *_checks("saving", initial.initialization),
    *_checks("saving", tying.tied_weights, variants=True),
    *_checks("saving", meta.meta_device, saving.save_and_load),
    # This one names the cause where later checks fail too: finite differences and optimizers change weights, and give
    # wrong results if a model keeps what it has computed from old ones.
    *_checks("purity", purity.changed_weights),
    *_checks("training", loss.auxiliary),
    *_checks("training", train.initial_loss, variants=True),
    *_checks("numerics", numerics.float64_gradients),
    *_checks("training", train.gradients, reach.long_gradients, train.overfitting),
    *_checks("numerics", numerics.bfloat16, long.long_precision, numerics.large_weights),
    *_checks("purity", modes.train_mode, variants=True),
    # A table that is cached for all models hides the effect of settings. `other_models` names this cause: it is first.
    *_checks("settings", settings.other_models, settings.settings),
    *_checks("purity", purity.seeds),
    *_checks("purity", capture.compiles),
    *_checks("counts", counting.flops, variants=True),
    *_checks("counts", counting.state_bytes),
    *_checks("counts", counting.declared_growth, variants=True),
    *_checks("layers", offers.offers, transferable.transferable),
)


# Checks that import torch's compiler in their first call, which takes seconds.
NEED_COMPILER = {"compiles", "flops", "chunked_loss", "meta_device", "gradients"}


def check_names() -> list[str]:
    """Returns the names of all checks, in the order in which they run."""
    return [check.name for check in CHECKS]


def explanation(name: str) -> str:
    """Returns what the check `name` does, in a few sentences. Raises `ConfigError` for an unknown name."""
    for check in CHECKS:
        if check.name == name:
            return f"{name} (group {check.group}): {inspect.getdoc(check.run)}"
    raise ConfigError(f"check={name!r} is no check{configs.suggest(name, check_names())}")


def check_model(
    target: LanguageModel | type[LanguageModel] | str,
    *,
    only: Collection[str] | None = None,
    listener: Callable[[Result], None] | None = None,
    thorough: bool = False,
    seed: int = 0,
    processes: int = 1,
) -> Report:
    """Checks a model against the contract and its own declarations.

    Returns a report: `report.passed` is True if all checks passed, and `report.failures` has the names of the others.
    `target` is a registered name, a class or a model. Most checks look at small and large models of its class and
    config. If it is a model, the checks whose names begin with `own_` look at a copy of it, with its weights and sizes;
    the model itself stays unchanged.
    `only` names the checks to run; `listener` is a callback that gets each result. `thorough` draws more random shapes
    and runs the variants of the config in the large form too; `seed` is for the random shapes. With `processes=2` a
    second process runs half of the checks: it imports the class anew, so it does not see what the caller has changed in
    it since.
    Raises `ConfigError` or `UnknownModelError` for an unknown target.
    """
    if only is not None and (isinstance(only, str) or not isinstance(only, Collection) or not only):
        raise ConfigError(f"only={only!r} must be a list of names of checks, such as ['causality']")
    unknown = {*map(str, only or ())} - set(check_names())
    if unknown:
        name = min(unknown)
        raise ConfigError(f"only={name!r} is no check{configs.suggest(name, check_names())}")
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):  # constructors draw weights: keep the caller's random state
        checked = subject(target)
        checked.thorough, checked.seed = thorough, seed
        checks = [check for check in CHECKS if only is None or check.name in only]
        checks = [check for check in checks if checked.own is not None or not check.needs_instance]
        results = _run_all(checks, checked, listener or _ignore, processes)
    complete = all(only is None or check.name in only for check in CHECKS if check.group in RANKING_GROUPS)
    seconds = time.perf_counter() - start
    return Report(checked.name, configs.to_dict(checked.config), tuple(results), complete, seconds)


def _ignore(_result: Result) -> None:
    """Default for `listener`: does nothing."""


def _run_all(checks: list[Check], checked: Subject, listener: Callable[[Result], None], processes: int) -> list[Result]:
    """Runs the checks, and returns and announces their results in the order of `checks`."""
    by_name = {check.name: check for check in checks}
    found: dict[str, Result] = {}
    done: list[Result] = []

    def announce() -> None:
        while len(done) < len(checks) and checks[len(done)].name in found:
            done.append(_explained(found[checks[len(done)].name], done))
            listener(done[-1])

    importable = can_be_imported(checked.cls)
    # The other process does not have the caller's own model.
    divided = importable and processes > 1 and len(checks) > 1 and checked.own is None
    if importable and (divided or "save_and_load" in by_name):
        checked.fresh_process = FreshProcess()
    try:
        # The other process begins at the end, with the checks that import torch's compiler.
        waiting = deque(sorted(by_name, key=lambda name: name in NEED_COMPILER))
        beside: Beside | None = None
        while waiting:
            try:
                name = waiting.popleft()
            except IndexError:  # the other process has just taken the last one
                break
            found[name] = run_check(by_name[name], checked)
            if name == "construction":
                if not found[name].passed:
                    waiting.clear()  # there is no model to check
                else:
                    saving.send(checked)
            if beside is None and divided and waiting and checked.fresh_process is not None:
                beside = Beside(checked.fresh_process, checked, waiting, found)
            announce()
        if beside is not None:  # the other process may still run its last check
            beside.join()
            for name in list(waiting):  # put back, because the other process has failed
                found[name] = run_check(by_name[name], checked)
            announce()
    finally:
        if checked.fresh_process is not None:
            checked.fresh_process.close()
        if checked.sent is not None:
            checked.sent.folder.cleanup()
    return done


def _explained(result: Result, earlier: Collection[Result]) -> Result:
    """Adds the earlier check from whose failure this one may follow, or that has raised the same exception."""
    if result.passed:
        return result
    failed = {other.name: other for other in earlier if not other.passed}
    same = next((name for name, other in failed.items() if "raised " in result.saw and other.saw == result.saw), "")
    if same:
        return replace(result, saw=f"raised the same exception as {same}", follows=failed[same].follows or same)
    return replace(result, follows=cause_of(result.name, failed))


def run_check(check: Check, checked: Subject) -> Result:
    """Runs one check on a subject, and on its variants if the check has `variants`."""
    start, passed, saw = time.perf_counter(), True, ""
    forms = [checked]
    try:
        forms += [form for form in checked.varied() if _matters(form, check)] if check.variants else []
    except ConfigError:  # of a variant that the config names itself
        raise
    except Exception as error:
        passed, saw = False, f"a variant of the config {_one_line(error)}; a config must raise ConfigError"
    for form in forms if passed else ():
        where = "" if form is checked else f"{form.name}: "
        try:
            with _settings_restored():
                seen = check.run(form)
            saw = saw or seen
        except Fault as fault:
            passed, saw = False, f"{where}{fault}"
            break
        except Exception as error:  # an exception of the model fails the check
            passed, saw = False, f"{where}{_one_line(error)}"
            break
    if passed and len(forms) > 1:
        saw += f"; also with {'; '.join(form.name.split(' with ')[1] for form in forms[1:])}"
    return Result(check.name, check.group, passed, saw, round(time.perf_counter() - start, 3))


def _matters(variant: Subject, check: Check) -> bool:
    """False for a variant that only ties the embeddings, in a check whose result does not depend on tied weights."""
    looks_at_weights = (tying.tied_weights, counting.flops, train.initial_loss)
    return variant.changes != {"tie_embeddings"} or check.run in looks_at_weights


@contextmanager
def _settings_restored() -> Iterator[None]:
    """Restores torch's global settings, which a model may have changed, for the next check and for the caller."""
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _one_line(error: Exception) -> str:
    """Returns the error in one line, with the innermost source line outside installed packages."""
    lines = [line.strip() for line in str(error).splitlines()] or [""]
    # torch's errors of load_state_dict() name the fault in the second line.
    what = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
    return f"raised {type(error).__name__}: {what}{raised_at(error)}"
