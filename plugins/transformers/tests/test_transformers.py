"""The engine `transformers`: the kit, beams, and text that never has to be taken back."""

import dataclasses
from pathlib import Path

import pytest
import torch

from llmtune.config.generation import GenerationSection
from llmtune.testing import EngineTests, ManifestTests, create, tiny_tokenizer
from llmtune.testing.engine import ANSWERS, answer, answers, request
from llmtune_plugin_transformers._stream import TextSoFar


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_transformers" / "llmtune-plugin.toml"


class TestTransformers(EngineTests):
    @pytest.fixture
    def engine(self):
        return create("engine", "transformers")

    def test_its_other_name_is_pt(self, engine):
        assert type(create("engine", "pt")) is type(engine)

    def test_an_answer_comes_in_pieces(self, started, requests):
        pieces = [chunk.text for chunk in started.generate([requests[0]])]
        assert len([piece for piece in pieces if piece]) == len(ANSWERS["a"])

    def test_closing_stops_the_model(self, started, tokenizer):
        settings = GenerationSection(do_sample=False, max_new_tokens=400)
        forwards = []
        started.model.register_forward_hook(lambda *_: forwards.append(1))
        endless = dataclasses.replace(
            request(tokenizer, "a", settings=settings), stop_token_ids=[tokenizer.pad_token_id]
        )
        chunks = started.generate([endless])
        next(chunks)
        chunks.close()
        count = len(forwards)
        assert count < 100
        assert answer(started, request(tokenizer, "colour?"))[0] == ANSWERS["colour?"]

    def test_beams_answer_too(self, started, tokenizer):
        beams = GenerationSection(do_sample=False, num_beams=3, max_new_tokens=48)
        group = [request(tokenizer, prompt, settings=beams) for prompt in ANSWERS]
        assert answer(started, group[0]) == (ANSWERS["a"], "stop")
        assert answers(started, group) == ANSWERS

    def test_temperature_zero_is_greedy(self, started, tokenizer):
        cold = GenerationSection(do_sample=True, temperature=0, max_new_tokens=48)
        assert answer(started, request(tokenizer, "a", settings=cold)) == (ANSWERS["a"], "stop")

    def test_a_repetition_penalty_is_applied(self, started, tokenizer):
        punished = GenerationSection(do_sample=False, repetition_penalty=50.0, max_new_tokens=12)
        ids = tokenizer(answer(started, request(tokenizer, "a", settings=punished))[0])["input_ids"]
        assert len(ids) == len(set(ids))

    def test_an_error_of_the_model_reaches_the_caller(self, started, tokenizer):
        one = request(tokenizer, "a")
        one.input_ids.append(10**6)
        with pytest.raises(IndexError):
            list(started.generate([one]))

    def test_close_frees_the_model(self, started):
        started.close()
        assert started.model is None

    def test_dropout_is_off(self, engine, taught):
        model = torch.nn.Dropout()
        engine.start(model, None)
        assert not model.training


class TestTextSoFar:
    """Pieces come token by token; the tiny tokenizer's tokens are bytes."""

    @pytest.fixture
    def tokenizer(self):
        return tiny_tokenizer()

    def pieces(self, tokenizer, text, stop_words=()):
        so_far = TextSoFar(tokenizer, stop_words)
        shown = []
        for token in tokenizer(text)["input_ids"]:
            shown.append(so_far.push(token))
            if so_far.stopped:
                break
        return [*shown, so_far.rest()]

    @pytest.mark.parametrize("text", ["plain", "你好，世界", "naïve 🙂 end", " leading and trailing ", "a\n\nb"])
    def test_pieces_join_to_the_text(self, tokenizer, text):
        assert "".join(self.pieces(tokenizer, text)) == text

    def test_half_a_character_is_held_back(self, tokenizer):
        assert self.pieces(tokenizer, "é🙂") == ["", "é", "", "", "", "🙂", ""]

    def test_the_start_of_a_stop_word_is_held_back(self, tokenizer):
        assert self.pieces(tokenizer, "ab STOP", ["STOP"]) == ["a", "b", " ", "", "", "", "", ""]

    def test_what_only_looked_like_a_stop_word_is_shown(self, tokenizer):
        assert "".join(self.pieces(tokenizer, "STO it is STEP", ["STOP"])) == "STO it is STEP"

    def test_the_first_of_several_stop_words_counts(self, tokenizer):
        assert "".join(self.pieces(tokenizer, "one two three", ["three", "two"])) == "one "

    def test_the_beginning_of_a_stop_word_at_the_end_is_shown(self, tokenizer):
        assert "".join(self.pieces(tokenizer, "done ST", ["STOP"])) == "done ST"

    def test_a_stop_word_after_half_a_character_is_found(self, tokenizer):
        assert "".join(self.pieces(tokenizer, "好END", ["END"])) == "好"

    def test_control_tokens_are_not_shown(self, tokenizer):
        so_far = TextSoFar(tokenizer, [])
        assert so_far.push(tokenizer.convert_tokens_to_ids("<|im_start|>")) == ""
        assert so_far.count == 1
