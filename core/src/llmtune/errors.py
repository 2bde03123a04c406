"""Every error a user can cause. Each says what was asked, what was found and what to do."""

from __future__ import annotations

TYPE_CHECKING = False  # read by type checkers; this module is on the path of `llmtune --version`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    Result = TypeVar("Result")


class LlmtuneError(Exception):
    """Base of all expected errors: shown without a traceback, exit code `exit_code`.

    `problem` says what was asked and what was found, `fix` what to do about it (a command where
    there is one). Further keyword arguments stay on the exception as attributes for callers.
    """

    exit_code = 1

    def __init__(self, problem: str, *, fix: str = "", **data: object) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.__dict__.update(data)

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.fix}" if self.fix else self.problem


class UsageError(LlmtuneError):
    """The command line or a run file is wrong. Exit code 2, nothing was started."""

    exit_code = 2


class UnknownName(UsageError):
    """A model, dataset, template ... that no installed plugin provides."""


class NameConflict(UsageError):
    """Two plugins claim the same name and the user did not say which one is meant."""


class ManifestError(LlmtuneError):
    """A plugin manifest that cannot be read or breaks the contract."""


class PluginFailed(LlmtuneError):
    """A plugin that the run needs is broken, failed to import or misses a requirement."""


class HubUnreachable(LlmtuneError):
    """A hub did not answer."""


class UploadFailed(LlmtuneError):
    """What a run produced is complete on this machine and did not reach the hub."""


class NotInCache(LlmtuneError):
    """Only the cache was allowed, and it does not hold what was asked for."""


class DataError(LlmtuneError):
    """A dataset that is missing, malformed, empty or without anything to train on."""


class TrainingDiverged(LlmtuneError):
    """A loss or a gradient that is not a finite number; the model as it was before is in the last checkpoint."""


class OutOfMemory(LlmtuneError):
    """Memory does not hold what cannot be computed in smaller parts."""


class OutputError(LlmtuneError):
    """A folder or disk that cannot be written."""


class CheckpointError(LlmtuneError):
    """A checkpoint folder that is missing, incomplete or of another kind. Exit code 2: another one must be given."""

    exit_code = 2


class Interrupted(LlmtuneError):
    """The user pressed Ctrl-C and the run stopped after saving. Exit code 130 (128 + SIGINT)."""

    exit_code = 130


class Problems:
    """Collects what is wrong, to raise it together."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._lines = list(lines)
        self._errors: list[UsageError] = []

    def add(self, lines: Iterable[str]) -> None:
        self._lines += lines

    def collect(self, function: Callable[..., Result], *arguments: Any) -> Result | None:
        """Call and return the result, None where the call raised a `UsageError`."""
        try:
            return function(*arguments)
        except UsageError as error:
            self._errors.append(error)
            return None

    def raise_any(self) -> None:
        """Raise what was collected: a single error as it was, several as one."""
        if len(self._errors) == 1 and not self._lines:
            raise self._errors[0]
        lines = list(dict.fromkeys([*self._lines, *map(str, self._errors)]))
        if lines:
            raise UsageError("\n".join(lines), fix="nothing was loaded or written; --help lists every option")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return "did you mean X?" for the one that is clearly closest, or for up to three; or an empty string."""
    import difflib

    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.8) or difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(prefix + match for match in close)}?" if close else ""
