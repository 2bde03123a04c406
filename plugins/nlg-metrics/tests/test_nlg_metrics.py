"""The metric `nlg` against the libraries themselves, on 500 pairs of texts, and against others that define the same."""

import logging
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from llmtune.testing import ManifestTests, MetricTests, create
from llmtune_plugin_nlg_metrics._metric import NAMES, NlgMetric, pair_values
from llmtune_plugin_nlg_metrics._words import chinese_words, is_chinese, words, words_and_marks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # escapes in their source
    import jieba
    from rouge_chinese import Rouge

logging.getLogger("jieba").setLevel(logging.WARNING)

ENGLISH = [
    "The old ferry leaves the harbour at nine, and nobody on board has ever seen the other shore in winter.",
    "A model is trained on pairs of questions and answers; what it says later depends on both of them.",
    '"Where are the keys?" she asked. "In the blue box, next to the box of tea," he said, "where they always are."',
    "Version 3.11 of the program reads 1,024 rows per second, which is twice as fast as version 3.10 was.",
    "If it rains tomorrow, we will stay at home and read the letters that came from Lisbon, Oslo and Prague.",
    "Water boils at 100 degrees; on a mountain it boils earlier, because there is less air above the pot.",
    "Don't forget to save the file before you close the window - the editor won't ask you twice!",
]
CHINESE = [
    "我是一个由团队训练的人工智能助手，我的名字叫小智，很高兴认识你。",
    "北京是中华人民共和国的首都，也是全国的政治中心、文化中心和国际交往中心。",
    "明天如果下雨，我们就留在家里看书；如果天气晴朗，我们就去公园散步。",
    "请用Python写一个函数，计算列表里所有偶数的平方和，并返回结果。",
    "这家餐厅的牛肉面很好吃，价格也不贵，一碗只要25元，推荐大家来尝尝！",
    "机器学习是人工智能的一个分支，它通过数据来学习规律，而不需要明确地编程。",
    "“你今天去哪儿了？”妈妈问。“我去图书馆借了三本书，”他回答说。",
]
BLEU_4 = SmoothingFunction().method3


def changed(pieces: list[str], chance: random.Random) -> list[str]:
    """Drop, repeat, swap and replace some of the pieces."""
    pieces = list(pieces)
    for _ in range(chance.randrange(1 + len(pieces) // 2)):
        at = chance.randrange(len(pieces))
        what = chance.choice(["drop", "repeat", "swap", "replace"])
        if what == "drop" and len(pieces) > 1:
            del pieces[at]
        elif what == "repeat":
            pieces.insert(at, pieces[at])
        elif what == "swap":
            other = chance.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        else:
            pieces[at] = chance.choice(pieces)
    return pieces


def pairs(texts: list[str], joint: str, seed: int) -> list[tuple[str, str]]:
    """Return 250 pairs of an answer and its reference, of one to three sentences; some answers are of another text."""
    chance, made = random.Random(seed), []
    for _ in range(250):
        reference = joint.join(chance.sample(texts, chance.randrange(1, 4)))
        source = joint.join(chance.sample(texts, 1)) if chance.random() < 0.1 else reference
        made.append((joint.join(changed(source.split(joint) if joint else list(source), chance)), reference))
    return made


IN_ENGLISH = pairs(ENGLISH, " ", seed=1)
IN_CHINESE = pairs(CHINESE, "", seed=2)


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_nlg_metrics" / "llmtune-plugin.toml"


class TestMetric(MetricTests):
    @pytest.fixture
    def metric(self):
        return create("metric", "nlg")


# --- the libraries themselves ---------------------------------------------------------------------


def rouge_chinese(prediction, reference):
    (found,) = Rouge().get_scores(" ".join(jieba.cut(prediction)), " ".join(jieba.cut(reference)))
    return [100 * found[name]["f"] for name in NAMES[:3]]


def rouge_score(prediction, reference):
    found = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, prediction)
    return [100 * found[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]


def libraries(prediction, reference):
    """Return the values of one pair from direct calls."""
    if reference in {reference for _, reference in IN_CHINESE}:
        tokens = list(prediction), list(reference)
        rouge = rouge_chinese(prediction, reference)
    else:
        tokens = wordpunct_tokenize(prediction), wordpunct_tokenize(reference)
        rouge = rouge_score(prediction, reference)
    return [*rouge, 100 * sentence_bleu([tokens[1]], tokens[0], smoothing_function=BLEU_4)]


def test_500_pairs_have_the_values_of_the_libraries():
    together = IN_ENGLISH + IN_CHINESE
    expected = [libraries(*pair) for pair in together]
    for pair, values in zip(together, expected, strict=True):
        assert list(pair_values(*pair).values()) == pytest.approx(values, abs=1e-9, rel=0), pair
    means = [sum(column) / len(together) for column in zip(*expected, strict=True)]
    found = NlgMetric().measure(*zip(*together, strict=True))
    assert found == {name: pytest.approx(mean, abs=5.1e-7) for name, mean in zip(NAMES, means, strict=True)}
    for column in zip(*expected, strict=True):
        assert min(column) < 40 < 90 < max(column), "the pairs are all alike"


# --- others that define the same ------------------------------------------------------------------


@pytest.mark.parametrize("made", [IN_ENGLISH, IN_CHINESE], ids=["English", "Chinese"])
def test_bleu_is_sacrebleu_s_with_the_same_tokens(made):
    """sacrebleu's default smoothing ("exp") is nltk's method 3; texts of less than 4 tokens are counted differently."""
    bleu = BLEU(effective_order=True, tokenize="none")
    for prediction, reference in made:
        tokens = [
            [one for one in (text if is_chinese(reference) else words_and_marks(text)) if one.strip()]
            for text in (prediction, reference)
        ]
        assert all(len(one) > 3 for one in tokens)
        theirs = bleu.sentence_score(" ".join(tokens[0]), [" ".join(tokens[1])]).score
        assert pair_values(prediction, reference)["bleu-4"] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("made", "cut"), [(IN_ENGLISH[:60], words), (IN_CHINESE[:60], chinese_words)], ids=["English", "Chinese"]
)
def test_where_the_two_rouge_libraries_mean_the_same(made, cut):
    """rouge-chinese counts an n-gram once however often it stands in a text, rouge-score as often as it stands in both.

    ROUGE-L always means the same, and ROUGE-1 and 2 where nothing is repeated. rouge-chinese adds 1e-8 to a
    denominator, up to 1e-6 on the scale to 100.
    """
    differ = 0
    for pair in made:
        tokens = [cut(text) for text in pair]
        google, chinese = both_rouges(*tokens)
        assert google[2] == pytest.approx(chinese[2], abs=1e-6)
        differ += google != pytest.approx(chinese, abs=1e-6)
        google, chinese = both_rouges(*(list(dict.fromkeys(one)) for one in tokens))
        assert google == pytest.approx(chinese, abs=1e-6)
    assert differ > 10


def both_rouges(prediction, reference):
    """Return ROUGE-1, 2 and L of two lists of tokens by rouge-score and by rouge-chinese."""

    class Tokens:
        def tokenize(self, text):
            return text.split()

    texts = " ".join(prediction), " ".join(reference)
    google = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokens()).score(texts[1], texts[0])
    (chinese,) = Rouge().get_scores(*texts)
    return [100 * one.fmeasure for one in google.values()], [100 * chinese[name]["f"] for name in NAMES[:3]]


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("", "yes"),
        ("yes", ""),
        ("", ""),
        (" \n\t", "好的"),
        ("。", "好的"),
        ("!", "yes"),
        ("好的", "yes"),
        ("no", "好的"),
    ],
)
def test_answers_without_anything_in_common_are_worth_nothing(prediction, reference):
    assert pair_values(prediction, reference) == dict.fromkeys(NAMES, 0.0)


def test_the_reference_decides_the_language():
    assert pair_values("我是Ada", "我是Ada")["bleu-4"] == 100
    assert pair_values("I am 小智.", "I am Ada.")["rouge-1"] == pytest.approx(100 * 2 / 3)
    assert [is_chinese(text) for text in ("abc", "caf\u00e9", "\u3072\u3089", "漢字", "a\U00020000b")] == [
        0,
        0,
        0,
        1,
        1,
    ]


@pytest.mark.parametrize("text", ["Le café est fermé.", "Привет, как дела?", "안녕하세요 세계, 오늘은 비가 와요"])
def test_words_of_other_languages_count(text):
    assert pair_values(text, text) == dict.fromkeys(NAMES, 100.0)
    assert pair_values("something else", text)["rouge-l"] == 0


def test_words_in_english_are_those_of_rouge_score():
    from rouge_score.tokenize import tokenize

    for text in [*ENGLISH, "snake_case; a-b, A.I. 3,5"]:
        assert words(text) == tokenize(text, None)
        assert words_and_marks(text) == wordpunct_tokenize(text)


def test_nothing_is_said_and_no_file_of_others_is_read(tmp_path):
    """jieba tells on stderr that it loads its dictionary, from a file in the folder that everybody may write to."""
    code = "from llmtune.testing import create; print(create('metric', 'nlg').measure(['我是小智'], ['我是小智']))"
    (tmp_path / "shared").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PATH": "", "TMPDIR": str(tmp_path / "shared"), "LLMTUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout[:12], done.stderr) == ("{'rouge-1': ", "")
    assert list((tmp_path / "shared").iterdir()) == []
    assert [path.name for path in (tmp_path / "cache/jieba").iterdir()] == ["jieba.cache"]
