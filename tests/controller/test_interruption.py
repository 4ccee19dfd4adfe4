"""Which signals end a command, and what a second one does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from bench.controller import interruption

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """The handlers of a program that a person started, whatever started the tests."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_ends_and_those_after_it_change_nothing(number: signal.Signals) -> None:
    tidied = False

    def interrupted() -> None:
        nonlocal tidied
        with interruption.once():
            try:
                os.kill(os.getpid(), number)
            finally:
                for another in NUMBERS:
                    os.kill(os.getpid(), another)
                tidied = True

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tidied


def test_handlers_are_as_before_afterwards() -> None:
    with interruption.once():
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_the_end_of_the_terminal_stays_ignored_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruption.once():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
