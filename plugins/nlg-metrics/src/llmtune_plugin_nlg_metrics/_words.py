"""Texts cut into what ROUGE and BLEU count."""

from __future__ import annotations

import functools
import logging
import re
import warnings
from typing import Any

from llmtune.api import cache_folder

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile(r"[^\W_]+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]+")


def is_chinese(text: str) -> bool:
    """Whether a text holds a Han character."""
    return _HAN.search(text) is not None


def chinese_words(text: str) -> list[str]:
    """Return the words that jieba cuts a text into, marks included, without space."""
    return [word for word in _jieba().lcut(text) if word.strip()]


def words(text: str) -> list[str]:
    """Return runs of letters and digits in lower case: for ASCII text what rouge-score does by itself.

    (rouge-score knows a to z only: of "café" it would leave "caf", of a Russian text nothing.)
    """
    return _WORD.findall(text.lower())


def words_and_marks(text: str) -> list[str]:
    """Return words as they are written, and runs of marks: nltk's `wordpunct_tokenize`."""
    return _WORD_OR_MARK.findall(text)


@functools.cache
def _jieba() -> Any:
    """Return a tokenizer that keeps its dictionary in llmtune's cache.

    jieba's own one reads it back from the folder for temporary files with `marshal`, where other users of the machine
    may have put another; and tells on stderr each time that it does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source has escapes that today's Python warns about
        import jieba
    logging.getLogger("jieba").setLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = cache_folder() / "jieba"
    tokenizer.tmp_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.initialize()
    return tokenizer
