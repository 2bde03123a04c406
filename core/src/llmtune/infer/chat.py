"""A chat in the terminal, with history."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmtune.errors import LlmtuneError
from llmtune.infer.answer import OWN_ADAPTER, Answerer
from llmtune.specs import Message, Row
from llmtune.template.thinking import said

HELP = """\
clear           forget the conversation
system TEXT     set the system prompt and start over; `system` alone goes back to the template's own
multi-line      end each message with a line that holds only #; single-line goes back
exit            leave (also quit, Ctrl-D)"""


@dataclass
class ChatSession:
    """The state of one chat; `reply` keeps the history."""

    answerer: Answerer
    show: Callable[[str], None]
    """Prints a piece of an answer without ending the line."""
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    adapter: str | None = None
    """Which of several adapters answers; None is the checkpoint's own."""

    def reply(self, query: str) -> str:
        """Answer `query` in the conversation so far. Ctrl-C keeps what was said up to then."""
        self.messages.append({"role": "user", "content": query})
        row: Row = {"messages": self.messages}
        if self.system is not None:
            row["system"] = self.system
        answer = ""
        try:
            for chunk in self.answerer.stream(row, self.adapter):
                answer += chunk.text
                self.show(chunk.text)
        except KeyboardInterrupt:
            self.show(" [stopped]")
        except BaseException:
            self.messages.pop()
            raise
        self.messages.append(said(answer))
        return answer

    def clear(self) -> None:
        self.messages.clear()

    def set_system(self, text: str | None) -> None:
        self.system = text
        self.clear()


def chat(answerer: Answerer, *, stream: bool = True, adapters: Sequence[str] = ()) -> None:
    """Read questions from the terminal (or a pipe) until `exit` or the end of input."""
    session = ChatSession(answerer, _print_piece if stream else _print_nothing)
    names = [OWN_ADAPTER, *adapters] if adapters else []
    commands = f"{HELP}\n{'adapter NAME    let another adapter answer: ' + ', '.join(names)}" if names else HELP
    print(f"{commands}\nhelp            show this\n")
    multi_line = False
    while (text := read_message(multi_line)) is not None:
        word, _, rest = text.partition(" ")
        if text in ("exit", "quit"):
            break
        if text in ("multi-line", "single-line"):
            multi_line = text == "multi-line"
        elif text == "help":
            print(commands)
        elif text == "clear":
            session.clear()
            print("the conversation is empty")
        elif word == "adapter" and names and rest in names:
            session.adapter = None if rest == OWN_ADAPTER else rest
            print(f"adapter: {rest}")
        elif word == "adapter" and names:
            print(f"there is no adapter {rest!r}; known are {', '.join(names)}", file=sys.stderr)
        elif word == "system":
            session.set_system(rest or None)
            print(f"system prompt: {rest or 'the one of the template'}")
        elif text:
            _answer(session, text, stream)


def _print_piece(text: str) -> None:
    print(text, end="", flush=True)


def _print_nothing(text: str) -> None:
    pass


def _answer(session: ChatSession, text: str, stream: bool) -> None:
    try:
        answer = session.reply(text)
        print("" if stream else answer, flush=True)
    except LlmtuneError as error:
        print(f"error: {error}", file=sys.stderr)


def read_message(multi_line: bool) -> str | None:
    """Return the next message, None at the end of input."""
    prompt = "<<< " if sys.stdin.isatty() else ""
    lines: list[str] = []
    while True:
        try:
            line = input(prompt if not lines else "")
        except EOFError:
            return "\n".join(lines) if lines else None
        if not multi_line:
            return line.strip()
        if line.strip() == "#":
            return "\n".join(lines).strip()
        if not lines and line.strip() in ("single-line", "exit", "quit"):
            return line.strip()
        lines.append(line)
