import io

from embedge.corpus.bar import CorpusBar
from embedge.corpus.journal import State


def test_a_job_that_resumes(clock: list[float], terminal: io.StringIO) -> None:
    done = 0.2
    with CorpusBar(True, lambda: done, State(texts=1000, tokens=9000), terminal) as bar:
        clock[0] = 10.0
        done = 0.4
        bar.show(State(texts=6000, tokens=59000, truncated=7, skipped=1))
        line = "6,000 texts, 500/s, 59,000 tokens, 7 truncated, 1 skipped, 0:30 left"
        assert terminal.getvalue() == f"\r{'█' * 8}{'░' * 12}  40% {line}"
        clock[0] = 3610.0
        done = 0.5
    # 0.3 of the bytes took 3610 s, so 0.5 of them take 6017.
    assert terminal.getvalue().endswith(", 7 truncated, 1 skipped, 1:40:17 left\n")


def test_standard_input_has_no_end_that_is_known(clock: list[float], terminal: io.StringIO) -> None:
    with CorpusBar(True, lambda: None, State(), terminal) as bar:
        clock[0] = 2.0
        bar.show(State(texts=10, tokens=30))
    assert terminal.getvalue() == "\r10 texts, 5/s, 30 tokens" * 2 + "\n"


def test_texts_count_from_the_first_micro_batch_on(
    clock: list[float], terminal: io.StringIO
) -> None:
    with CorpusBar(True, lambda: None, State(texts=8), terminal) as bar:
        clock[0] = 2.0
        bar.encoded(32, 4096)
        assert terminal.getvalue() == "\r40 texts, 16/s, 0 tokens"


def test_a_line_a_minute_where_there_is_no_terminal(clock: list[float]) -> None:
    stream = io.StringIO()
    with CorpusBar(True, lambda: None, State(), stream) as bar:
        for second in range(0, 130, 10):
            clock[0] = float(second)
            bar.show(State(texts=second))
    lines = ["embedge: 60 texts, 1/s, 0 tokens\n", "embedge: 120 texts, 1/s, 0 tokens\n"]
    assert stream.getvalue() == "".join(lines)
    stream = io.StringIO()
    with CorpusBar(False, lambda: None, State(), stream) as bar:
        clock[0] = 1e6
        bar.show(State(texts=1))
    assert stream.getvalue() == ""
