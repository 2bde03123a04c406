"""ROUGE and BLEU from the reference libraries of each language."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

from llmtune.api import Metric
from llmtune_plugin_nlg_metrics._words import chinese_words, is_chinese, words, words_and_marks

NAMES = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
_DIGITS = 6


class NlgMetric(Metric):
    """The mean over all pairs of each value, from 0 to 100."""

    best = "rouge-l"

    def measure(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        pairs = [pair_values(*pair) for pair in zip(predictions, references, strict=True)]
        return {name: round(sum(pair[name] for pair in pairs) / len(pairs), _DIGITS) for name in NAMES}


def pair_values(prediction: str, reference: str) -> dict[str, float]:
    """Return the values of one answer. Its language is the one of the reference."""
    counted = _chinese if is_chinese(reference) else _words
    if not prediction.strip() or not reference.strip():
        return dict.fromkeys(NAMES, 0.0)
    rouge, bleu = counted(prediction, reference)
    return {name: 100 * value for name, value in zip(NAMES, (*rouge, bleu), strict=True)}


def _chinese(prediction: str, reference: str) -> tuple[list[float], float]:
    """ROUGE of jieba's words by rouge-chinese, BLEU of characters by nltk.

    As in SWIFT but for ROUGE-L, which its library (rouge) counts over distinct words.
    """
    spaced = [" ".join(chinese_words(text)) for text in (prediction, reference)]
    (found,) = _rouge_chinese().get_scores(*spaced)
    return [found[name]["f"] for name in NAMES[:3]], _bleu(list(prediction), list(reference))


def _words(prediction: str, reference: str) -> tuple[list[float], float]:
    """ROUGE of words by Google's rouge-score, BLEU of words and marks by nltk."""
    found = _rouge_score().score(reference, prediction)
    rouge = [found[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]
    return rouge, _bleu(words_and_marks(prediction), words_and_marks(reference))


def _bleu(prediction: list[str], reference: list[str]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    return float(sentence_bleu([reference], prediction, smoothing_function=SmoothingFunction().method3))


@functools.cache
def _rouge_chinese() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source has escapes that today's Python warns about
        from rouge_chinese import Rouge
    return Rouge()


class _Words:
    """What rouge-score asks for words."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@functools.cache
def _rouge_score() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
