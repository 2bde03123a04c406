import io
import sys

import pytest

from llmtune.config.generation import GenerationSection
from llmtune.errors import DataError
from llmtune.infer.answer import Answerer
from llmtune.infer.chat import ChatSession, chat, read_message
from llmtune.interfaces.engine import Chunk, Engine
from llmtune.template.chat_format import ChatFormat


class Echo(Engine):
    """Answers with its whole prompt in brackets; a prompt that holds a key of `raises` ends with that error."""

    def start(self, model, tokenizer):
        self.tokenizer, self.raises = tokenizer, {}

    def generate(self, requests):
        text = self.tokenizer.decode(requests[0].input_ids)
        yield Chunk(id=requests[0].id, text="[")
        for word, error in self.raises.items():
            if word in text:
                raise error
        yield Chunk(id=requests[0].id, text=f"{text}]", finish_reason="stop")


@pytest.fixture
def engine(tokenizer):
    engine = Echo()
    engine.start(None, tokenizer)
    return engine


@pytest.fixture
def answerer(engine, tokenizer, chatml):
    parts = {"prompt": ["{{QUERY}}|"], "chat_sep": [";"], "system_prefix": ["({{SYSTEM}})"], "default_system": None}
    return Answerer(engine, ChatFormat(chatml(**parts), tokenizer), GenerationSection())


@pytest.fixture
def session(answerer):
    return ChatSession(answerer, show=lambda text: None)


def test_the_history_grows_with_every_turn(session):
    assert [session.reply("a"), session.reply("b")] == ["[a|]", "[a|[a|];b|]"]
    assert [message["role"] for message in session.messages] == ["user", "assistant"] * 2


def test_clearing_forgets_the_turns_and_keeps_the_system_prompt(session):
    session.set_system("S")
    session.reply("a")
    session.clear()
    assert session.reply("b") == "[(S)b|]"


def test_a_system_prompt_starts_over_and_none_goes_back_to_the_templates(session):
    session.reply("a")
    session.set_system("S")
    assert session.reply("b") == "[(S)b|]"
    session.set_system(None)
    assert session.reply("c") == "[c|]"


def test_pieces_are_shown_as_they_come(answerer):
    shown = []
    ChatSession(answerer, shown.append).reply("a")
    assert shown == ["[", "a|]"]


def test_an_error_leaves_the_history_as_it_was(session, engine):
    session.reply("a")
    before = list(session.messages)
    engine.raises["bad"] = DataError("cannot")
    with pytest.raises(DataError, match="cannot"):
        session.reply("bad")
    assert session.messages == before
    assert session.reply("b").endswith("b|]")


def test_ctrl_c_keeps_what_was_said_up_to_then(session, engine):
    engine.raises["long"] = KeyboardInterrupt()
    assert session.reply("long") == "["
    assert session.messages[-1] == {"role": "assistant", "content": "["}


@pytest.fixture
def talk(answerer, monkeypatch, capsys):
    """Type these lines into a chat and return (printed, errors) after the greeting."""

    def run(*lines, **options):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat(answerer, **options)
        shown = capsys.readouterr()
        return shown.out.split("show this\n\n", 1)[1].splitlines(), shown.err

    return run


@pytest.mark.parametrize("stream", [True, False])
def test_each_question_is_answered_until_the_end_of_input(talk, stream):
    assert talk("a", "", "b", stream=stream)[0] == ["[a|]", "[a|[a|];b|]"]


@pytest.mark.parametrize("word", ["exit", "quit"])
def test_a_chat_ends_where_it_is_left(talk, word):
    assert talk("a", word, "b")[0] == ["[a|]"]


def test_commands_clear_and_set_the_system_prompt(talk):
    lines, _ = talk("a", "clear", "b", "system Be kind.", "c", "system", "d")
    answers = [line for line in lines if line.startswith("[")]
    assert answers == ["[a|]", "[b|]", "[(Be kind.)c|]", "[d|]"]
    assert next(line for line in lines if "Be kind." in line).startswith("system prompt")


def test_a_question_that_only_begins_like_a_command_is_a_question(talk):
    assert talk("clear the table", "exit strategy", "systems")[0][0] == "[clear the table|]"
    assert len(talk("clear the table", "exit strategy", "systems")[0]) == 3


def test_a_message_of_several_lines_ends_with_a_hash(talk):
    lines, _ = talk("multi-line", "one", "", "two", "#", "single-line", "three")
    assert "\n".join(lines) == "[one\n\ntwo|]\n[one\n\ntwo|[one\n\ntwo|];three|]"


@pytest.mark.parametrize("word", ["exit", "quit"])
def test_a_chat_of_several_lines_can_be_left(talk, word):
    assert talk("multi-line", word, "one", "#")[0] == []


def test_an_unfinished_message_is_sent_at_the_end_of_input(talk):
    assert talk("multi-line", "one", "two")[0] == ["[one", "two|]"]


def test_an_error_is_shown_and_the_chat_goes_on(talk, engine):
    engine.raises["bad"] = DataError("cannot", fix="do this")
    lines, errors = talk("a", "bad", "b")
    assert ("error: cannot" in errors, "do this" in errors) == (True, True)
    assert lines[-1].endswith("[a|[a|];b|]")


def test_help_lists_the_commands(talk):
    shown = "\n".join(talk("help")[0])
    assert [word for word in ("clear", "system", "multi-line", "exit") if word not in shown] == []


def test_the_end_of_input_is_no_message(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert (read_message(False), read_message(True)) == (None, None)
