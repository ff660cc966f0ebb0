"""The live line never costs a run: whoever read it may be gone."""

import io

import pytest

from robustlab.report.live import LiveLine


class Gone(io.StringIO):
    """A terminal that was closed after some writes."""

    def __init__(self, writes: int, *, terminal: bool) -> None:
        super().__init__()
        self.left, self.terminal = writes, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError
        return super().write(text)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_that_nobody_reads_is_given_up(terminal: bool) -> None:
    stream = Gone(1, terminal=terminal)
    line = LiveLine(stream)
    line.say("one")
    line.say("two")
    with line.stage("three"):
        line.advance(1, 2)
    assert stream.getvalue() == ("\r\x1b[2Kone\n" if terminal else "one\n")
    # It does not try again.
    assert stream.left == -1


def test_what_is_said_stands_on_a_line_of_its_own() -> None:
    stream = io.StringIO()
    line = LiveLine(stream)
    line.say("one")
    with line.stage("two"):
        pass
    assert stream.getvalue().splitlines() == ["one", "two ...", "two: done in 0.0 s"]
