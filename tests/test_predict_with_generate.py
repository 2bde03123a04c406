"""--predict_with_generate: answers to the validation rows, what they measure, and training as without them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import Llmtune, without
from configuring import configured, installed
from forked import forked_ranks

from llmtune.cli.main import main
from llmtune.errors import PluginFailed, Problems, UnknownName
from llmtune.interfaces.metric import Metric
from llmtune.pipelines.behaviours import find_behaviours
from llmtune.pipelines.generated_metrics import GeneratedMetrics, share
from llmtune.plugins.catalogue import Catalogue
from llmtune.testing import create, create_template, load_tiny, tiny_model

ROWS = dict.fromkeys(("Who are you?", "What is two and two?", "你叫什么名字？", "No"), "yes")
"""Questions of different lengths, and what the tiny model learns to answer in 15 steps."""
GREEDY = ("--predict_with_generate", "true", "--do_sample", "false", "--max_new_tokens", "12")
SAMPLED = ("--predict_with_generate", "true", "--temperature", "2", "--top_k", "0", "--top_p", "1", *GREEDY[4:])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), hidden_size=64, initializer_range=0.2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"query": query, "response": response}) + "\n" for query, response in ROWS.items()]
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "validation.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def flags(base: Path, rows: Path) -> list[str]:
    """Flags of a run with dropout and gradient checkpointing that validates at steps 15 and 30."""
    return [
        *("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(base), "--dtype", "fp32"),
        *("--dataset", f"{rows / 'train.jsonl'}#120", "--val_dataset", str(rows / "validation.jsonl")),
        *("--target_modules", "ALL", "--learning_rate", "1e-2", "--lr_scheduler_type", "constant"),
        *("--warmup_ratio", "0", "--batch_size", "4", "--gradient_accumulation_steps", "1", "--max_steps", "30"),
        *("--eval_steps", "15", "--eval_batch_size", "2", "--save_total_limit", "-1", "--logging_steps", "1"),
        *("--dataloader_num_workers", "0", "--add_output_dir_suffix", "false", "--disable_tqdm"),
    ]


def train(folder: Path, flags: Sequence[str]) -> Path:
    assert main(["sft", *flags, "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def measured(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("measured"), [*flags, *GREEDY])


@pytest.fixture(scope="module")
def plain(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("plain"), flags)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]


def generations(folder: Path, step: int) -> list[dict[str, Any]]:
    path = folder / f"generations/step-{step}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    """Return step -> what was measured of answers."""
    measured = ("eval_rouge-1", "eval_rouge-2", "eval_rouge-l", "eval_bleu-4")
    return {line["step"]: {name[5:]: line[name] for name in measured} for line in log(folder) if "eval_bleu-4" in line}


def test_every_evaluation_writes_the_answers_and_logs_what_they_measure(measured: Path, rows: Path) -> None:
    found = evaluations(measured)
    assert sorted(found) == [15, 30]
    metric = create("metric", "nlg")
    for step, values in found.items():
        lines = generations(measured, step)
        assert [line["query"] for line in lines] == list(ROWS)[:3]
        assert [line["label"] for line in lines] == list(ROWS.values())[:3]
        assert [line["source"] for line in lines] == [f"{rows / 'validation.jsonl'}:{number}" for number in (1, 2, 3)]
        assert values == metric.measure(*([line[key] for line in lines] for key in ("response", "label")))


def test_a_model_that_has_learnt_the_answers_gives_them(measured: Path) -> None:
    assert [line["response"] for line in generations(measured, 30)] == list(ROWS.values())[:3]
    assert evaluations(measured)[30]["rouge-l"] == 100


def test_training_is_the_same_bit_for_bit(measured: Path, plain: Path) -> None:
    """With dropout, so that random numbers count."""
    names = [
        {name: line[name] for name in line if "rouge" not in name and "bleu" not in name} for line in log(measured)
    ]
    assert names == log(plain)
    for step in (15, 30):
        found, expected = (folder / f"checkpoint-{step}/adapter_model.safetensors" for folder in (measured, plain))
        assert found.read_bytes() == expected.read_bytes()


def test_the_best_checkpoint_has_the_highest_rouge_l(
    llmtune: Llmtune, flags: list[str], measured: Path, plain: Path, tmp_path: Path
) -> None:
    """A resumed run says it again: nothing is left to train."""
    by_rouge = min(evaluations(measured), key=lambda step: (-evaluations(measured)[step]["rouge-l"], step))
    losses = {line["step"]: line["eval_loss"] for line in log(plain) if "eval_loss" in line}
    by_loss = min(losses, key=lambda step: losses[step])
    assert by_rouge != by_loss
    for folder, more, best in ((measured, GREEDY, by_rouge), (plain, (), by_loss)):
        shutil.copytree(folder, tmp_path / folder.name)
        last = tmp_path / folder.name / "checkpoint-30"
        result = llmtune("sft", *flags, *more, "--resume_from_checkpoint", str(last))
        assert result.code == 0, result.err
        assert f"best checkpoint: {last.parent / f'checkpoint-{best}'} " in result.out


def test_samples_are_repeatable_and_training_goes_on_as_without_them(
    llmtune: Llmtune, flags: list[str], plain: Path, tmp_path: Path
) -> None:
    short = without(flags, "--max_steps", "--eval_steps")
    for name in ("one", "two"):
        words = ("--max_steps", "4", "--eval_steps", "2", "--output_dir", str(tmp_path / name))
        assert llmtune("sft", *short, *SAMPLED, *words).code == 0
    answers = [[line["response"] for line in generations(tmp_path / name, 2)] for name in ("one", "two")]
    assert answers[0] == answers[1]
    losses = [[line["loss"] for line in log(folder) if "loss" in line] for folder in (tmp_path / "one", plain)]
    assert losses[0] == losses[1][:4]


def test_two_processes_share_the_rows_and_measure_all_of_them(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    """Three rows, so that one of the two has nothing to do at the end."""
    short = [*without(flags, "--max_steps", "--eval_steps", "--batch_size"), "--lora_dropout", "0", *GREEDY]
    short += ["--max_steps", "2", "--eval_steps", "1"]
    alone = llmtune("sft", *short, "--batch_size", "4", "--output_dir", str(tmp_path / "alone"))
    assert alone.code == 0, alone.err
    words = ("--batch_size", "2", "--output_dir", str(tmp_path / "pair"))
    processes = forked_ranks(["sft", *short, *words], 2, tmp_path / "log")
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "log").read_text()
    for step in (1, 2):
        found, expected = (generations(tmp_path / name, step) for name in ("pair", "alone"))
        assert len({line["response"] for line in expected}) == 3, "the order of the answers does not show"
        assert found == expected
        assert evaluations(tmp_path / "pair")[step] == evaluations(tmp_path / "alone")[step]


@pytest.mark.parametrize(("rows", "ranks"), [(1, 1), (5, 1), (5, 2), (6, 3), (1, 4), (7, 4)])
def test_every_rank_answers_equally_many_rows_and_none_is_forgotten(rows: int, ranks: int) -> None:
    shares = [share(rows, rank, ranks) for rank in range(ranks)]
    assert len({len(one) for one in shares}) == 1
    assert sorted({number for one in shares for number in one}) == list(range(rows))
    assert [shares[number % ranks][number // ranks] for number in range(rows)] == list(range(rows))


# --- one evaluation -------------------------------------------------------------------------------


class Seen(Metric):
    """Remembers what it was given."""

    best = "count"

    def measure(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        self.predictions, self.references = predictions, references
        return {"count": len(predictions)}


def evaluation(base: Path, folder: Path, metric: Metric, **settings: Any) -> tuple[Any, GeneratedMetrics]:
    """Return a model that trains with gradient checkpointing, and what evaluates it."""
    from llmtune.config.generation import GenerationSection
    from llmtune.infer.answer import Answerer

    loaded = load_tiny(base)
    _, template = create_template("chatml", loaded.tokenizer)
    model = loaded.model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.config.use_cache = False
    generation = GenerationSection(do_sample=False, **settings)
    rows = [
        {"messages": [{"role": "user", "content": query}, {"role": "assistant", "content": response}]}
        for query, response in ROWS.items()
    ]
    return model, GeneratedMetrics(
        rows=rows,  # type: ignore[arg-type]
        new_answerer=lambda: Answerer(create("engine", "transformers"), template, generation, seed=1),
        tokenizer=loaded.tokenizer,
        metric=metric,
        metric_name="test::seen",
        batch_size=2,
        folder=folder / "generations",
        rank=0,
        world_size=1,
        show=False,
    )


def test_a_model_that_recomputes_activations_generates_with_its_cache(base: Path, tmp_path: Path) -> None:
    model, evaluate = evaluation(base, tmp_path, Seen(), max_new_tokens=4)
    lengths: list[int] = []
    embed = model.get_input_embeddings()
    hook = embed.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    assert evaluate(model, 3) == {"count": 4}
    hook.remove()
    assert [length for length in lengths if length > 1] == lengths[::4], lengths
    assert len(lengths) == 8
    assert model.training
    assert model.is_gradient_checkpointing
    labels = evaluate.metric.references  # type: ignore[attr-defined]
    assert list(labels) == list(ROWS.values())


def test_an_answer_ends_where_the_model_has_no_more_positions(base: Path, tmp_path: Path) -> None:
    model, evaluate = evaluation(base, tmp_path, Seen(), max_new_tokens=10_000)
    model.config.max_position_embeddings = 90
    evaluate(model, 1)
    assert max(len(text) for text in evaluate.metric.predictions) < 90  # type: ignore[attr-defined]


class Broken(Metric):
    best = "rouge-l"

    def measure(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {"other": 1 / (len(predictions) - 4)} if "raises" in self.best else {"other": 1}


@pytest.mark.parametrize(("best", "part"), [("raises", "ZeroDivisionError"), ("rouge-l", "measured other, and not")])
def test_a_metric_that_fails_is_named(base: Path, tmp_path: Path, best: str, part: str) -> None:
    metric = Broken()
    metric.best = best
    model, evaluate = evaluation(base, tmp_path, metric, max_new_tokens=1)
    with pytest.raises(PluginFailed, match="metric test::seen") as caught:
        evaluate(model, 1)
    assert part in caught.value.problem
    assert (tmp_path / "generations/step-1.jsonl").is_file(), "the answers were generated at some cost"


# --- what cannot work -----------------------------------------------------------------------------


def test_rows_that_cannot_be_answered_are_named_and_none_at_all_is_refused_before_weights_load(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    some = tmp_path / "some.jsonl"
    some.write_text('{"query": "a?", "response": "b"}\n{"text": "no question"}\n', encoding="utf-8")
    words = [*flags, *GREEDY, "--dry_run"]
    result = llmtune("sft", *without(words, "--val_dataset"), "--val_dataset", str(some))
    assert result.code == 0, result.err
    assert (
        f"1 of 2 validation rows are not answered ({some}:2: it needs a question and an answer in text)" in result.out
    )
    some.write_text('{"text": "no question"}\n', encoding="utf-8")
    for more in (("--val_dataset", str(some)), ("--dataset_test_ratio", "0")):
        result = llmtune("sft", *without(words, "--val_dataset"), *more)
        assert (result.code, "no validation row can be answered" in result.err) == (1, True), result.err


@pytest.mark.parametrize("kind", ["metric", "engine"])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(kind: str) -> None:
    missing = {"metric": "llmtune-plugin-nlg-metrics", "engine": "llmtune-plugin-transformers"}[kind]
    catalogue = Catalogue(tuple(plugin for plugin in installed().plugins if plugin.dist != missing))
    problems = Problems()
    find_behaviours(configured("sft", "--predict_with_generate", "true"), catalogue, problems)
    with pytest.raises(UnknownName) as caught:
        problems.raise_any()
    flag = {"metric": "--metric", "engine": "--predict_with_generate"}[kind]
    assert caught.value.problem.startswith(f"{flag}: {kind} ")
    assert caught.value.fix == f"pip install {missing}"


PLUGIN = """
from llmtune.api import Metric, hookimpl

@hookimpl
def llmtune_create_metric(name, options, run):
    class Length(Metric):
        best = "characters"
        higher_is_better = options.shorter is False

        def measure(self, predictions, references):
            return {"characters": sum(map(len, predictions)) / len(predictions)}

    return Length()
"""
OPTIONS = """
from pydantic import Field
from llmtune.api import Section

class LengthOptions(Section):
    \"\"\"Length\"\"\"

    shorter: bool = Field(True, description="Whether the best checkpoint says least.")
"""
MANIFEST = """
api = 1
summary = "Lengths of answers"
module = "length_metric.plugin"

[metric.length]
summary = "Characters of an answer"
options = "length_metric.options:LengthOptions"
"""


def test_anybody_s_metric_with_its_own_flags_takes_its_place(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "length_metric"
    folder.mkdir()
    for name, text in {"plugin.py": PLUGIN, "options.py": OPTIONS, "llmtune-plugin.toml": MANIFEST}.items():
        (folder / name).write_text(text)
    (folder / "__init__.py").touch()
    words = ("--max_steps", "2", "--eval_steps", "1", "--metric", "length", "--shorter", "true", *GREEDY)
    output = tmp_path / "output"
    result = llmtune(
        "sft", *without(flags, "--max_steps", "--eval_steps"), *words, "--output_dir", str(output),
        "--custom_register_path", str(folder),
    )  # fmt: skip
    assert result.code == 0, result.err
    found = {line["step"]: line["eval_characters"] for line in log(output) if "eval_characters" in line}
    assert sorted(found) == [1, 2]
    assert found[1] == sum(len(line["response"]) for line in generations(output, 1)) / 3
    best = min(found, key=lambda step: found[step])
    assert f"best checkpoint: {output / f'checkpoint-{best}'} " in result.out
