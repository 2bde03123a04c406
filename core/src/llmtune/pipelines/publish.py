"""`--push_to_hub`: where a run uploads to, what it says there, and when."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmtune.config import environment
from llmtune.config.commands import CommandConfig, ExportConfig, SftConfig
from llmtune.errors import LlmtuneError, UploadFailed, UsageError
from llmtune.interfaces.trainer import RunResult
from llmtune.model.fetch import find_hub
from llmtune.pipelines.model_card import model_card as card_of
from llmtune.pipelines.prepare import Prepared
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.requirements import check_requirements
from llmtune.train import checkpoint, ranks
from llmtune.train.checkpoint_files import ARGUMENTS, read_arguments
from llmtune.train.hub_calls import HubCalls
from llmtune.train.log import read_log
from llmtune.train.publish import Destination, Publisher
from llmtune.train.published_files import lay_out

_DEFAULT = "modelscope"
"""Where SWIFT uploads to."""


def hub_for_uploads(config: CommandConfig, catalogue: Catalogue) -> Entry:
    """Return --hub, --use_hf, USE_HF or LLMTUNE_HUB, else ModelScope; not the hub that a checkpoint came from."""
    given = config.get("hub") if config.given("hub") else None
    preferred = None if config.get("use_hf") is False else environment.preferred_hub()
    entry = find_hub(given or ("huggingface" if config.get("use_hf") else preferred) or _DEFAULT, catalogue)
    check_requirements(entry)
    return entry


def destination(config: Any, catalogue: Catalogue, *, create: bool = True) -> Destination:
    """Return the repository of --hub_model_id; raise `UsageError` where the token may not write to it.

    Asks the hub: a token that is missing or refused is known before anything else is read.
    """
    section = config.upload
    entry = hub_for_uploads(config, catalogue)
    local = config.plugins.custom_register_path if entry.plugin.local is not None else ()
    calls = HubCalls(hub=entry.qualified, token=config.hub.hub_token, local=tuple(local))
    repo = calls.open(section.hub_model_id, private=section.hub_private_repo, create=create)
    return Destination(calls=calls, repo=repo, private=section.hub_private_repo)


def destination_of_run(prepared: Prepared[SftConfig]) -> Destination | None:
    """Return where the run uploads to; None without --push_to_hub, and on all ranks but the first."""
    config = prepared.config
    if not config.upload.push_to_hub or not ranks.is_first():
        return None
    strategy = config.saving.push_hub_strategy
    if strategy in ("checkpoint", "all_checkpoints") and config.saving.save_only_model:
        raise UsageError(
            f"--push_hub_strategy {strategy} uploads what resuming needs, and --save_only_model is true for this run",
            fix="add --save_only_model false, or choose push_last",
        )
    found = destination(config, prepared.manager.catalogue, create=not config.rehearsal.dry_run)
    prepared.run.say(f"uploads to: {found.calls.hub.rpartition('::')[2]} {found.repo} ({strategy})")
    return found


class Uploads:
    """The uploads of one run; none without a destination."""

    def __init__(self, publisher: Publisher | None) -> None:
        self._publisher = publisher

    def checkpoint_saved(self, path: Path, is_best: bool) -> None:
        if self._publisher is not None:
            self._publisher.checkpoint_saved(path, is_best)

    def finish(self, result: RunResult) -> None:
        """Wait until the hub has what the strategy promises; raise `UploadFailed` where it cannot."""
        if self._publisher is not None:
            self._publisher.finish(result.best_checkpoint, result.last_checkpoint)


@contextmanager
def uploads(prepared: Prepared[SftConfig], to: Destination | None, folder: Path) -> Iterator[Uploads]:
    """Upload in the background for the block; what is under way at its end, by an error or a signal, is stopped."""
    if to is None:
        yield Uploads(None)
        return
    card = card_of(
        {**prepared.config.flat(), "model_type": prepared.choices.model.entry.name}, to, prepared.manager.catalogue
    )
    publisher = Publisher(
        to,
        prepared.config.saving.push_hub_strategy,
        folder,
        card=lambda path: card.text(_measured(folder, checkpoint.step_of(path))),
        base=card.base_id or card.base,
        say=prepared.run.say,
    )
    try:
        yield Uploads(publisher)
    finally:
        publisher.close()


def _measured(folder: Path, step: int) -> dict[str, Any]:
    lines = [line for line in read_log(folder) if line.get("step") == step]
    found = {key: value for line in lines for key, value in line.items() if key.startswith("eval_")}
    return {"step": step, **found}


def publish_folder(config: ExportConfig, catalogue: Catalogue, folder: Path, to: Destination) -> None:
    """Upload a checkpoint or what was made of it: what answering needs, with a page that says how it was trained."""
    checkpoint.check_readable(folder)
    has_arguments = (folder / ARGUMENTS).is_file() and not checkpoint.is_foreign(folder)
    own = {**config.model.model_dump(mode="json"), "sft_type": config.inference.sft_type}
    card = card_of(read_arguments(folder) if has_arguments else own, to, catalogue)
    with tempfile.TemporaryDirectory(prefix=f"{checkpoint.STAGING}upload-", dir=folder.parent) as place:
        laid_out = Path(place) / folder.name
        lay_out(folder, laid_out, base=card.base_id or card.base)
        (laid_out / "README.md").write_text(card.text(), encoding="utf-8")
        try:
            address = to.upload(laid_out, config.export.commit_message)
        except LlmtuneError as error:
            fix = f"it is complete in {folder}; upload it later with: {to.later(folder)}"
            raise UploadFailed(f"{folder.name} was not uploaded to {to.repo}: {error}", fix=fix) from None
    print(f"uploaded {folder} to {address}")
