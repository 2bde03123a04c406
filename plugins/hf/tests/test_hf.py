"""The trainer `hf`: the loss it minimises, evaluation, checkpoints, resuming, polite stops."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import wandb
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from llmtune.data.packing import joined
from llmtune.errors import TrainingDiverged, UsageError
from llmtune.testing import ManifestTests, create, load_tiny
from llmtune.train import checkpoint
from llmtune_plugin_hf._collate import EMPTY, Collate, targets
from llmtune_plugin_hf._forward import Forward
from llmtune_plugin_hf._isolation import can_be_padding_free, keeps_apart
from llmtune_plugin_hf._spread import Copies
from llmtune_plugin_hf._steps import RankSteps, longest_first, shuffled
from llmtune_plugin_hf._trainer import make_loop
from llmtune_plugin_hf._varlen import VarlenAttention

PAD = 0


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_hf" / "llmtune-plugin.toml"


def make_rows(count, *, seed=0, weights=None):
    """Rows of different lengths with different numbers of targets, each after a prompt."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        ids = torch.randint(3, 250, (6 + 5 * (number % 4),), generator=generator).tolist()
        prompt = 2 + number % 3
        row = {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}
        rows.append({**row, "loss_weights": [weights] * len(ids)} if weights is not None else row)
    return rows


def test_a_model_on_several_devices_is_refused():
    model = torch.nn.Linear(1, 1)
    model.hf_device_map = {"model": 0, "lm_head": "cpu"}
    with pytest.raises(UsageError, match=r"several devices \(0, cpu\)"):
        Copies().place(model, torch.device("cpu"))


def fit(job):
    return create("trainer", "hf").fit(job)


def loss_of(model, rows, *, padding_free=True, measure=None):
    """Return the summed loss of rows in one forward pass, and what was measured."""
    attention = VarlenAttention()
    if padding_free:
        assert attention.install(model)
    batch = Collate(PAD, padding_free=padding_free)(rows)
    forward = Forward(model, attention, torch.device("cpu"), pin_memory=False)
    with forward.samples_of(batch):
        found = forward.loss(model, batch, measure)
    attention.remove(model)
    return found


def token_losses(model, row):
    """Return the loss of each target token of one row, from the full logits."""
    ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    losses = F.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="none")
    return losses[labels[0, 1:] != -100]


def weights_of(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


class TestLoss:
    def test_the_loss_of_a_step_is_the_mean_over_all_its_target_tokens(self, make_job):
        rows = make_rows(4)
        job = make_job(rows, batch_size=1, gradient_accumulation_steps=4, max_steps=1)
        expected = torch.cat([token_losses(job.model, row) for row in rows]).mean().item()
        fit(job)
        assert job.callbacks[0].values("loss")[1] == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize(("optim", "atol"), [("sgd", 1e-6), ("adamw_torch", 1e-5)])
    def test_accumulated_small_batches_train_as_one_large_batch(self, make_job, optim, atol):
        """AdamW divides by the gradient's size, which makes rounding errors larger; a step is 1e-3 there."""
        rows, settings = make_rows(12), {"optim": optim, "max_steps": 3, "learning_rate": 1e-3}
        large = make_job(rows, batch_size=4, gradient_accumulation_steps=1, **settings)
        small = make_job(rows, batch_size=1, gradient_accumulation_steps=4, **settings)
        mixed = make_job(rows, batch_size=2, gradient_accumulation_steps=2, **settings)
        start = weights_of(large.model).clone()
        for job in (large, small, mixed):
            fit(job)
        assert (weights_of(large.model) - start).abs().max() > 1e-5, "nothing was trained"
        for job in (small, mixed):
            torch.testing.assert_close(weights_of(job.model), weights_of(large.model), atol=atol, rtol=0)

    def test_the_gradient_is_that_of_the_mean_over_target_tokens(self, make_job, folder):
        rows = make_rows(4)
        job = make_job(rows, batch_size=2, gradient_accumulation_steps=2, max_steps=1, optim="sgd", learning_rate=1.0)
        fit(job)
        model = load_tiny(folder).model.train()
        total, count = torch.zeros(()), 0
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
            logits = model(input_ids=ids).logits[0, :-1]
            total = total + F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            count += int((labels != -100).sum())
        (total / count).backward()
        expected = torch.cat([(value - value.grad).flatten() for value in model.parameters()])
        torch.testing.assert_close(weights_of(job.model), expected.detach(), atol=1e-6, rtol=0)

    def test_a_label_on_the_first_token_counts_nowhere(self, make_job):
        """Nothing predicts it; --truncation_strategy truncation_left cuts rows that start so."""
        rows = make_rows(4)
        cut = [{**row, "labels": [row["input_ids"][0], *row["labels"][1:]]} for row in rows]
        jobs = [make_job(some, batch_size=1, gradient_accumulation_steps=4, max_steps=1) for some in (rows, cut)]
        for job in jobs:
            fit(job)
        first, second = (job.callbacks[0].values("loss")[1] for job in jobs)
        assert second == pytest.approx(first, abs=1e-6)

    def test_loss_weights_scale_the_loss_of_their_tokens(self, make_job):
        plain, double = (
            make_job(make_rows(4, weights=weight), batch_size=2, gradient_accumulation_steps=2, max_steps=1)
            for weight in (1.0, 2.0)
        )
        for job in (plain, double):
            fit(job)
        first, second = (job.callbacks[0].values("loss")[1] for job in (plain, double))
        assert second == pytest.approx(2 * first, rel=1e-4)

    @pytest.mark.parametrize("padding_free", [True, False])
    def test_rows_without_weights_have_weight_one_beside_others(self, folder, padding_free):
        model = load_tiny(folder).model
        weighted, plain = make_rows(2, weights=0.25)[0], make_rows(2)[1]
        total, _ = loss_of(model, [weighted, plain], padding_free=padding_free)
        expected = 0.25 * token_losses(model, weighted).sum() + token_losses(model, plain).sum()
        assert total.item() == pytest.approx(expected.item(), abs=1e-4)

    def test_the_head_on_target_positions_alone_gives_the_same_loss_and_gradient(self, folder):
        class TakesNoLogitsToKeep(type(load_tiny(folder).model)):
            def forward(self, input_ids, position_ids, use_cache):
                return super().forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

        losses, gradients = [], []
        for keeps in (True, False):
            model = load_tiny(folder).model
            model.__class__ = type(model) if keeps else TakesNoLogitsToKeep
            total, _ = loss_of(model, make_rows(4))
            (total / 40).backward()
            losses.append(total.item())
            gradients.append(torch.cat([value.grad.flatten() for value in model.parameters()]))
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=0)

    def test_the_head_runs_on_target_positions_alone(self, folder):
        model, seen, rows = load_tiny(folder).model, [], make_rows(4)
        model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
        loss_of(model, rows)
        assert seen == [sum(map(targets, rows))]

    @pytest.mark.parametrize("padding_free", [True, False])
    def test_a_batch_without_a_target_has_no_loss_and_no_nan(self, folder, padding_free):
        model, row = load_tiny(folder).model, make_rows(1)[0]
        empty = {**row, "labels": [-100] * len(row["labels"])}
        for measure in ("token", "sentence"):
            total, measured = loss_of(model, [empty], padding_free=padding_free, measure=measure)
            assert (total.item(), measured.tolist()) == (0.0, [0.0, 0.0])


class TestAccuracy:
    """A model whose predictions are its own: every token is right. One is changed, which is one wrong prediction."""

    @pytest.fixture
    def predicted(self, folder):
        model = load_tiny(folder).model.eval()
        rows = []
        for row in make_rows(3):
            ids = row["input_ids"]
            with torch.no_grad():
                best = model(input_ids=torch.tensor([ids])).logits[0].argmax(dim=-1).tolist()
            rows.append({**row, "labels": [-100, -100, -100, *best[2:-1]]})
        return model, rows

    @pytest.mark.parametrize("padding_free", [True, False])
    @pytest.mark.parametrize("packed", [True, False])
    def test_by_token_and_by_sentence(self, predicted, padding_free, packed):
        model, rows = predicted
        count = sum(map(targets, rows))
        rows[1]["labels"][-1] = (rows[1]["labels"][-1] + 1) % 200
        given = [joined(rows[:2]), rows[2]] if packed else rows
        by_token, by_sentence = (
            loss_of(model, given, padding_free=padding_free, measure=measure)[1].tolist()
            for measure in ("token", "sentence")
        )
        assert by_token == [count - 1, count]
        # Padded packs are counted as one: their samples are told apart by positions alone.
        assert by_sentence == ([1, 2] if packed and not padding_free else [2, 3])


class TestCollate:
    def test_padding_is_masked_and_never_a_target(self):
        short, long = make_rows(2)
        batch = Collate(PAD, padding_free=False)([short, long])
        size = len(short["input_ids"])
        assert batch["input_ids"][0].tolist() == short["input_ids"] + [PAD] * (len(long["input_ids"]) - size)
        assert batch["labels"][0, size:].eq(-100).all()
        assert batch["attention_mask"].sum(dim=1).tolist() == [size, len(long["input_ids"])]

    def test_without_padding_rows_follow_each_other_and_no_first_token_is_a_target(self):
        rows = [{**row, "labels": row["input_ids"]} for row in make_rows(2)]
        batch = Collate(PAD, padding_free=True)(rows)
        assert batch["input_ids"].tolist() == [rows[0]["input_ids"] + rows[1]["input_ids"]]
        assert batch["position_ids"].tolist() == [[*range(6), *range(11)]]
        assert batch["labels"][0, [0, 6]].tolist() == [-100, -100]
        assert "attention_mask" not in batch

    @pytest.mark.parametrize("padding_free", [True, False])
    def test_the_loss_of_a_row_does_not_depend_on_its_batch(self, folder, padding_free):
        model, rows = load_tiny(folder).model.eval(), make_rows(4)
        together = loss_of(model, rows, padding_free=padding_free)[0].item()
        assert together == pytest.approx(sum(token_losses(model, row).sum().item() for row in rows), abs=1e-3)

    @pytest.mark.parametrize("padding_free", [True, False])
    def test_an_empty_row_changes_no_loss(self, folder, padding_free):
        model, rows = load_tiny(folder).model.eval(), make_rows(3)
        alone, filled = (loss_of(model, some, padding_free=padding_free)[0].item() for some in (rows, [*rows, EMPTY]))
        assert filled == pytest.approx(alone, abs=1e-4)


class TestStepsOfRanks:
    @pytest.mark.parametrize("rows", [1, 5, 8, 9, 16])
    @pytest.mark.parametrize(("size", "world_size"), [(2, 2), (4, 2), (12, 4), (16, 1)])
    def test_every_row_is_in_one_step_of_one_rank_and_all_have_equally_many_steps(self, rows, size, world_size):
        ranks = [list(RankSteps(rows, size=size, rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert {len(steps) for steps in ranks} == {-(-rows // size)}
        assert sorted(row for steps in ranks for step in steps for row in step) == list(range(rows))

    def test_a_step_of_two_ranks_has_the_rows_of_a_step_of_one(self):
        def order():
            return shuffled(15, seed=3)

        alone = list(RankSteps(15, size=4, order=order))
        pair = [list(RankSteps(15, size=4, rank=rank, world_size=2, order=order)) for rank in (0, 1)]
        assert [sorted(first + second) for first, second in zip(*pair, strict=True)] == list(map(sorted, alone))

    def test_ranks_have_about_equally_many_tokens(self):
        lengths = [1000, 10, 20, 500, 30, 40, 460, 900]
        pair = [next(iter(RankSteps(8, size=8, rank=rank, world_size=2, lengths=lengths))) for rank in (0, 1)]
        tokens = [sum(lengths[row] for row in rows) for rows in pair]
        assert abs(tokens[0] - tokens[1]) < 0.05 * sum(tokens)

    def test_the_longest_rows_come_first_on_request(self):
        assert longest_first([3, 9, 1, 9]) == [1, 3, 0, 2]


class TestEvaluation:
    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_the_loss_is_per_token_over_the_whole_set(self, make_job, size):
        held_out = make_rows(5, seed=1)
        job = make_job(make_rows(4), eval_rows=held_out, eval_batch_size=size, max_steps=1, learning_rate=1e-12)
        expected = torch.cat([token_losses(job.model, row) for row in held_out]).mean().item()
        result = fit(job)
        assert result.metrics["eval_loss"] == pytest.approx(expected, abs=1e-5)

    def test_the_last_step_is_evaluated_too(self, make_job):
        job = make_job(make_rows(4), eval_rows=make_rows(2, seed=1), max_steps=5, eval_steps=2)
        fit(job)
        assert sorted(job.callbacks[0].values("eval_loss")) == [2, 4, 5]

    def test_evaluating_does_not_change_what_is_trained(self, make_job):
        without = make_job(make_rows(8), max_steps=4)
        often = make_job(make_rows(8), eval_rows=make_rows(3, seed=1), eval_steps=1, max_steps=4)
        for job in (without, often):
            fit(job)
        assert torch.equal(weights_of(without.model), weights_of(often.model))


class TestCheckpoints:
    def test_the_best_has_the_lowest_validation_loss(self, make_job):
        """At this learning rate the loss falls, then explodes."""
        settings = {"learning_rate": 0.1, "max_steps": 6, "save_strategy": "steps", "save_steps": 1, "eval_steps": 1}
        job = make_job(make_rows(8), eval_rows=make_rows(3, seed=1), save_total_limit=-1, **settings)
        result = fit(job)
        losses = job.callbacks[0].values("eval_loss")
        assert checkpoint.step_of(result.best_checkpoint) == min(losses, key=losses.get)
        assert result.last_checkpoint.name == "checkpoint-6"

    def test_each_is_complete_and_the_limit_keeps_best_and_last(self, make_job):
        settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
        job = make_job(make_rows(8), eval_rows=make_rows(2, seed=1), eval_steps=1, **settings)
        result = fit(job)
        kept = checkpoint.complete_checkpoints(job.folder)
        assert len(kept) == 2
        assert {result.best_checkpoint, result.last_checkpoint} <= set(kept)

    def test_the_extras_are_inside_and_the_callback_sees_the_complete_folder(self, make_job):
        job, seen = make_job(make_rows(4), max_steps=2, save_strategy="steps", save_steps=2), []
        job = dataclasses.replace(
            job,
            write_extras=lambda path: (path / "extra.json").write_text("{}") and None,
            checkpoint_saved=lambda path, is_best: seen.append((path.name, checkpoint.problem(path), is_best)),
        )
        fit(job)
        assert seen == [("checkpoint-2", "", True)]
        assert (job.folder / "checkpoint-2" / "extra.json").exists()

    def test_the_callback_is_told_which_are_the_best_so_far(self, make_job):
        """At this learning rate the loss falls, then explodes."""
        settings = {"learning_rate": 0.1, "max_steps": 6, "save_strategy": "steps", "save_steps": 1, "eval_steps": 1}
        job, seen = make_job(make_rows(8), eval_rows=make_rows(3, seed=1), save_total_limit=2, **settings), []
        fit(dataclasses.replace(job, checkpoint_saved=lambda path, is_best: seen.append(is_best)))
        losses = list(job.callbacks[0].values("eval_loss").values())
        assert seen == [loss == min(losses[: number + 1]) for number, loss in enumerate(losses)]
        assert set(seen) == {True, False}

    def test_a_model_alone_is_saved_without_the_optimizer(self, make_job):
        job = make_job(make_rows(4), max_steps=1, save_strategy="steps", save_steps=1, save_only_model=True)
        fit(job)
        assert not list((job.folder / "checkpoint-1").glob("*.pt"))


class TestResuming:
    SETTINGS = {  # noqa: RUF012
        "sft_type": "lora",
        "options": {"lora_dropout": 0.3, "target_modules": ["ALL"]},
        "batch_size": 2,
        "max_steps": 6,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_steps": 2,
        "gradient_checkpointing": True,
        "dataloader_num_workers": 1,
    }

    def job(self, make_job, **more):
        """Eight rows in batches of two: six steps end in the middle of the second epoch."""
        job = make_job(make_rows(8), eval_rows=make_rows(2, seed=1), **{**self.SETTINGS, **more})
        job.model.enable_input_require_grads()
        return job

    def resumed(self, make_job, whole):
        """Train the second half from a copy of the middle checkpoint, as if nothing else were left."""
        middle = whole.folder.with_name("resumed") / "checkpoint-3"
        shutil.copytree(whole.folder / "checkpoint-3", middle)
        return self.job(make_job, name="resumed", resume_from=middle)

    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(self, make_job):
        whole = self.job(make_job)
        fit(whole)
        rest = self.resumed(make_job, whole)
        result = fit(rest)
        assert result.steps == 6
        assert torch.equal(weights_of(rest.model), weights_of(whole.model))
        saved, expected = (job.folder / "checkpoint-6" / "adapter_model.safetensors" for job in (rest, whole))
        assert saved.read_bytes() == expected.read_bytes()

    def test_it_logs_what_the_uninterrupted_run_logged(self, make_job):
        whole = self.job(make_job)
        fit(whole)
        rest = self.resumed(make_job, whole)
        fit(rest)
        for name in ("loss", "eval_loss", "learning_rate", "grad_norm"):
            expected = {step: value for step, value in whole.callbacks[0].values(name).items() if step > 3}
            assert rest.callbacks[0].values(name) == expected


class Press:
    """A callback that presses Ctrl-C when step `step` is logged."""

    def __init__(self, step, number=signal.SIGINT, to_children=False):
        self.step, self.number, self.to_children = step, number, to_children

    def on_log(self, step, values):
        if step != self.step or "loss" not in values:
            return
        children = multiprocessing.active_children() if self.to_children else []
        assert bool(children) == self.to_children
        for pid in (*(child.pid for child in children), *(child.pid for child in children), os.getpid()):
            os.kill(pid, self.number)
            time.sleep(0.01 if children else 0)


class TestLearningRates:
    @pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup", "cosine_with_min_lr", "polynomial"])
    @pytest.mark.parametrize(("steps", "warmup"), [(1, 1), (6, 3), (4, 4)])
    def test_the_warm_up_begins_above_zero_and_ends_at_the_rate(self, make_job, name, steps, warmup):
        more = {"lr_scheduler_kwargs": {"min_lr": 1e-3}} if name == "cosine_with_min_lr" else {}
        job = make_job(make_rows(8), max_steps=steps, warmup_steps=warmup, lr_scheduler_type=name, **more)
        fit(job)
        rates = list(job.callbacks[0].values("learning_rate").values())
        assert rates[:warmup] == pytest.approx([1e-2 * (number + 1) / warmup for number in range(warmup)])
        assert rates[-1] > 0

    def test_what_comes_after_the_warm_up_is_the_schedule_of_transformers(self, make_job):
        job = make_job(make_rows(8), max_steps=6, warmup_steps=2, lr_scheduler_type="linear")
        fit(job)
        assert list(job.callbacks[0].values("learning_rate").values()) == pytest.approx(
            [1e-2 * factor for factor in (1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4)]
        )

    def test_one_step_learns_with_all_defaults(self, make_job, capsys):
        job = make_job(make_rows(4), max_steps=1, sft_type="lora", lr_scheduler_type="linear", warmup_ratio=0.05)
        fit(job)
        assert any(bool(one.any()) for name, one in job.model.named_parameters() if "lora_B" in name)
        assert "changed nothing" not in capsys.readouterr().out

    def test_a_run_whose_updates_are_all_zero_says_so(self, make_job, capsys):
        fit(make_job(make_rows(4), max_steps=2, learning_rate=1e-30))
        assert "warning: training changed nothing: all updates of 2 steps were zero" in capsys.readouterr().out


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_saves_and_stops(self, make_job, number):
        job = make_job(make_rows(8), max_steps=8, save_strategy="steps", save_steps=8)
        job.callbacks.append(Press(2, number))
        result = fit(job)
        assert result.stop_signal == number
        assert result.steps == 3  # the signal came when step 2 was over
        assert result.last_checkpoint == job.folder / "checkpoint-3"
        assert not checkpoint.problem(result.last_checkpoint)

    def test_ctrl_c_in_a_terminal_reaches_the_processes_that_collate_too(self, make_job):
        """They must not die of it: the DataLoader would end the run with an error, unsaved."""
        job = make_job(make_rows(32), max_steps=30, save_strategy="steps", save_steps=30, dataloader_num_workers=1)
        job.callbacks.append(Press(20, to_children=True))
        result = fit(job)
        assert (result.stop_signal, result.steps) == (signal.SIGINT, 21)
        assert not checkpoint.problem(result.last_checkpoint)

    def test_a_run_that_ends_says_so(self, make_job):
        assert fit(make_job(make_rows(4), max_steps=2)).stop_signal is None

    def test_the_handlers_of_before_come_back(self, make_job):
        before = signal.getsignal(signal.SIGINT)
        fit(make_job(make_rows(4), max_steps=1))
        assert signal.getsignal(signal.SIGINT) is before

    def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(self, make_job):
        tests = TestResuming()
        whole = tests.job(make_job)
        fit(whole)
        stopped = tests.job(make_job, name="stopped", save_steps=6)
        stopped.callbacks.append(Press(3))
        saved = fit(stopped).last_checkpoint
        assert saved.name == "checkpoint-4"
        rest = tests.job(make_job, name="stopped", resume_from=saved)
        fit(rest)
        assert torch.equal(weights_of(rest.model), weights_of(whole.model))


class TestProgress:
    def test_without_a_bar_every_logged_step_is_a_line(self, make_job, capsys):
        job = make_job(make_rows(4), eval_rows=make_rows(2, seed=1), max_steps=2, eval_steps=2)
        fit(job)
        plan, *lines = capsys.readouterr().out.splitlines()
        assert plan == "a forward pass computes up to 512 tokens, without padding"
        trained = [line for line in lines if "eval_loss" not in line]
        assert [line.split(":")[0] for line in trained] == ["step 1", "step 2"]
        assert [
            word
            for word in ("loss", "acc", "tokens/s", "padding 0%", "memory", "left 0:00:00")
            if word not in trained[1]
        ] == []
        assert [line.split(",")[0].split(" ")[2] for line in lines if "eval_loss" in line] == ["eval_loss"]

    def test_a_bar_counts_the_steps(self, make_job, capsys):
        fit(make_job(make_rows(4), max_steps=2, disable_tqdm=False))
        assert "2/2" in capsys.readouterr().err


def test_a_bar_ends_before_an_error_is_said(make_job, capsys):
    job = make_job(make_rows(4), max_steps=2, disable_tqdm=False)
    torch.nn.init.constant_(job.model.get_input_embeddings().weight, float("nan"))
    with pytest.raises(TrainingDiverged):
        fit(job)
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("restarted", [True, False])
def test_positions_that_go_on_from_sample_to_sample_are_noticed(dtype, restarted):
    torch.manual_seed(0)
    size = {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).to(dtype)
    if not restarted:
        forward = model.transformer.forward
        model.transformer.forward = lambda *given, position_ids=None, **more: forward(*given, **more)
    attention = VarlenAttention()
    assert can_be_padding_free(model, attention)
    forward_pass = Forward(model, attention, torch.device("cpu"), pin_memory=False)
    assert keeps_apart(model, forward_pass, Collate(PAD, padding_free=True)) == restarted


def test_a_resumed_run_is_computed_as_the_run_was(make_job, monkeypatch):
    """Whether samples keep apart is tried once: in half precision the trained model's answer may be another one."""
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    for padding_free in (True, False):
        first = make_job(make_rows(4), name=f"run-{padding_free}", padding_free=padding_free, **settings)
        fit(first)
        monkeypatch.setattr("llmtune_plugin_hf._trainer.keeps_apart", lambda *_, found=not padding_free: found)
        start = first.folder / "checkpoint-2"
        resumed = make_job(make_rows(4), name=f"run-{padding_free}", resume_from=start, **settings)
        loop = make_loop(resumed, Copies())
        assert loop.passes.collate.padding_free == padding_free
        loop.passes.forward.attention.remove(resumed.model)
        monkeypatch.undo()


def test_tensorboard_shows_each_step_of_a_resumed_run_once(make_job):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "report_to": ["tensorboard"]}
    whole = make_job(make_rows(4), **settings)
    fit(whole)
    resumed = make_job(make_rows(4), resume_from=whole.folder / "checkpoint-2", **settings)
    fit(resumed)
    events = EventAccumulator(str(whole.folder / "runs"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]


def test_a_resumed_run_is_recorded_where_its_first_part_is(make_job, monkeypatch):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "report_to": ["wandb"]}
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = make_job(make_rows(4), **settings)
    monkeypatch.setenv("WANDB_DIR", str(first.folder))
    ids = []
    for how in ({}, {"resume_from": first.folder / "checkpoint-2"}, {"name": "other"}):
        job = make_job(make_rows(4), **how, **settings)
        fit(job)
        ids.append(json.loads((job.folder / "trackers.json").read_text())["wandb"])
    recorded = {path.name.rpartition("-")[2] for path in first.folder.glob("wandb/offline-run-*")}
    assert recorded == set(ids)
    assert ids[0] == ids[1] != ids[2]


def test_a_tracker_that_needs_a_login_says_so(make_job, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()  # reads the environment anew
    with pytest.raises(UsageError, match="--report_to wandb: "):
        fit(make_job(make_rows(4), max_steps=1, report_to=["wandb"]))


def test_tensorboard_files_go_where_they_are_wanted(make_job, tmp_path):
    default = make_job(make_rows(4), max_steps=1, report_to=["tensorboard"])
    chosen = make_job(make_rows(4), max_steps=1, report_to=["tensorboard"], logging_dir=str(tmp_path / "elsewhere"))
    for job, place in ((default, default.folder / "runs"), (chosen, tmp_path / "elsewhere")):
        fit(job)
        assert list(place.glob("events.out.tfevents.*"))
