import os
import signal
import threading

import pytest

from llmtune.train.interrupt import StopRequest, stop_requests


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_interrupts(number, capsys):
    before = handlers()

    def press_twice():
        with stop_requests() as request:
            assert (bool(request), request.signal) == (False, None)
            os.kill(os.getpid(), number)
            assert (bool(request), request.signal) == (True, number)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert handlers() == before
    assert "saving" in capsys.readouterr().err


def test_handlers_are_restored_after_a_run_without_a_signal():
    before = handlers()
    with stop_requests():
        assert handlers() != before
    assert handlers() == before


def test_handlers_are_restored_after_an_error():
    before = handlers()

    def fail():
        with stop_requests():
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert handlers() == before


def test_another_thread_leaves_the_handlers_to_their_owner():
    before, seen = handlers(), []

    def work():
        with stop_requests() as request:
            seen.append((bool(request), handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_nobody_asked_to_stop_at_first():
    assert not StopRequest()


def test_the_first_signal_is_no_second_one_after_another_rank_asked_to_stop():
    """Signals reach the ranks one after the other, and the ranks tell each other in between."""
    with stop_requests() as request:
        request.signal = signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_one_process_agrees_with_itself():
    with stop_requests() as request:
        assert (request.agreed(), request.signal) == (False, None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (request.agreed(), request.signal) == (True, signal.SIGTERM)
