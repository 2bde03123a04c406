"""Packed and streamed training: samples stay apart, nothing is trained on twice or left out."""

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from llmtune.data.encode import Encoder
from llmtune.data.packing import PackedRows, joined, pack
from llmtune.data.report import DataReport
from llmtune.data.spool import spooled
from llmtune.data.stream import Stream
from llmtune.data.truncate import Limit
from llmtune.errors import UsageError
from llmtune.testing import create, create_template, load_tiny
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._forward import Forward
from llmtune_plugin_hf._isolation import keeps_apart
from llmtune_plugin_hf._varlen import VarlenAttention

PAD = 0
IMPLEMENTATIONS = ["eager", "sdpa", "varlen"]


def make_rows(count, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = [6 + 5 * (number % 4) for number in range(count)]
    ids = [torch.randint(3, 250, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": one, "labels": [-100, -100, *one[2:]]} for one in ids]


def packed(rows, size=48):
    return PackedRows(rows, pack([len(row["input_ids"]) for row in rows], size))


@pytest.fixture
def model(folder):
    return load_tiny(folder).model.eval()


def forward_of(model, implementation):
    """Return (forward, collate) as the loop has them for a model with this attention."""
    attention = VarlenAttention()
    if implementation == "varlen":
        assert attention.install(model)
    else:
        model.set_attn_implementation(implementation)
    forward = Forward(model, attention, torch.device("cpu"), pin_memory=False)
    return forward, Collate(PAD, padding_free=implementation == "varlen")


def logits(model, implementation, rows):
    """Return the logits of each row, as the loop would compute them together."""
    forward, collate = forward_of(model, implementation)
    found = forward.logits(model, collate(rows))
    forward.attention.remove(model)
    sizes = [len(row["input_ids"]) for row in rows]
    if implementation == "varlen":
        return found[0].split(sizes)
    return [one[:size] for one, size in zip(found, sizes, strict=True)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("changed", [0, 1, 2])
def test_another_sample_changes_no_logit_of_its_neighbours(model, implementation, changed):
    samples = make_rows(3)
    others = [*samples]
    others[changed] = {**samples[changed], "input_ids": [token + 1 for token in samples[changed]["input_ids"]]}
    short = joined(make_rows(1, seed=5))  # padded beside the pack
    first, second = (logits(model, implementation, [joined(one), short]) for one in (samples, others))
    lengths = [len(sample["input_ids"]) for sample in samples]
    start = sum(lengths[:changed])
    apart = torch.ones(sum(lengths), dtype=torch.bool)
    apart[start : start + lengths[changed]] = False
    assert torch.equal(first[0][apart], second[0][apart])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0][~apart], second[0][~apart])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_sample_has_the_logits_that_it_has_alone(model, implementation):
    samples = make_rows(3)
    (together,) = logits(model, implementation, [joined(samples)])
    start = 0
    for sample in samples:
        end = start + len(sample["input_ids"])
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([sample["input_ids"]]), use_cache=False).logits[0]
        torch.testing.assert_close(together[start:end], alone, rtol=1e-5, atol=1e-5)
        start = end


def test_positions_begin_again_with_each_sample_and_padding_is_one_of_its_own():
    batch = Collate(PAD, padding_free=False)([joined(make_rows(2)), joined(make_rows(1))])
    assert batch["position_ids"].tolist() == [[*range(6), *range(11)], [*range(6), *range(11)]]
    assert "attention_mask" not in batch
    assert batch["labels"][1, 6:].tolist() == [-100] * 11


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_keeps_samples_apart_is_accepted_and_the_model_left_as_it_was(model, implementation):
    model.train()
    assert keeps_apart(model, *forward_of(model, implementation))
    assert model.training


def test_an_implementation_that_mixes_samples_is_refused_by_name(model, make_job):
    AttentionInterface.register("sees_all", ALL_ATTENTION_FUNCTIONS["sdpa"])  # has no mask of its own: it gets none
    try:
        assert not keeps_apart(model, *forward_of(model, "sees_all"))
        job = make_job(packed(make_rows(8)), packed=True, max_steps=1)
        job.model.set_attn_implementation("sees_all")
        with pytest.raises(UsageError, match="--packing: with sees_all"):
            create("trainer", "hf").fit(job)
    finally:
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop("sees_all")


def weights_of(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_a_packed_step_is_the_step_of_the_same_rows_apart(make_job):
    """All rows in one step: the sum over their target tokens is the same however they are laid out."""
    rows = make_rows(12)
    apart = make_job(rows, name="apart", batch_size=12, max_steps=1, optim="sgd")
    together = packed(rows)
    one = make_job(together, name="packed", packed=True, batch_size=len(together), max_steps=1, optim="sgd")
    for job in (apart, one):
        create("trainer", "hf").fit(job)
    torch.testing.assert_close(weights_of(one.model), weights_of(apart.model), rtol=1e-5, atol=1e-7)


def streamed(folder, tmp_path, monkeypatch, **settings):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "cache"))
    rows = spooled(
        {
            "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a" * (n % 9 + 1)}],
            "source": f"d:{n}",
        }
        for n in range(23)
    )
    _, template = create_template("chatml", load_tiny(folder).tokenizer)
    encoder = Encoder(template=template, limit=Limit(max_length=128))
    return Stream(**{"lines": rows.lines, "encoder": encoder, "report": DataReport(), "buffer_size": 8, **settings})


@pytest.mark.parametrize("kind", ["packed", "streamed", "streamed and packed"])
def test_a_resumed_run_is_the_run_without_a_stop_bit_for_bit(make_job, folder, tmp_path, monkeypatch, kind):
    def data():
        if kind == "packed":
            return packed(make_rows(40))
        return streamed(folder, tmp_path, monkeypatch, pack_to=128 if "packed" in kind else None)

    settings = {
        "packed": "packed" in kind,
        "save_strategy": "steps",
        "save_steps": 3,
        "save_total_limit": 9,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 7,  # more than one pass over the data
    }
    whole = make_job(data(), name="whole", **settings)
    create("trainer", "hf").fit(whole)
    resumed = make_job(data(), name="whole", resume_from=tmp_path / "whole" / "checkpoint-3", **settings)
    create("trainer", "hf").fit(resumed)
    assert torch.equal(weights_of(resumed.model), weights_of(whole.model))
    losses = whole.callbacks[0].values("loss")
    assert resumed.callbacks[0].values("loss") == {step: loss for step, loss in losses.items() if step > 3}


def test_rows_that_turn_out_to_be_unusable_are_reported_and_add_nothing(make_job):
    rows, found = make_rows(4), []
    unusable = {"input_ids": [0], "labels": [-100], "problem": ("too long", "d:9")}
    jobs = [make_job(rows, name="clean", batch_size=5, max_steps=1, optim="sgd")]
    jobs.append(make_job([*rows, unusable], name="with", batch_size=5, max_steps=1, optim="sgd"))
    for job in jobs:
        job.left_out = lambda reason, source: found.append((reason, source))
        create("trainer", "hf").fit(job)
    assert found == [("too long", "d:9")]
    torch.testing.assert_close(*(weights_of(job.model) for job in jobs), rtol=1e-5, atol=1e-7)
