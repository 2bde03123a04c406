import pytest

from llmtune.train.log import JsonlLog, cut_log, draw_curves, read_log

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def log(tmp_path):
    """Log a loss and a learning rate at steps 1 to 4."""
    log = JsonlLog(tmp_path)
    for step in (1, 2, 3, 4):
        log.on_log(step, {"loss": 1 / step, "learning_rate": 0.1})
    return log


def steps(folder):
    return [line["step"] for line in read_log(folder)]


def test_values_are_read_back_in_order(log, tmp_path):
    assert read_log(tmp_path)[1] == {"step": 2, "loss": 0.5, "learning_rate": 0.1}
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_run_without_a_log_has_no_lines(tmp_path):
    assert read_log(tmp_path) == []


@pytest.mark.parametrize("cut", ['{"step": 5, "lo', "", "{"])
def test_a_line_cut_short_by_a_kill_is_left_out(log, tmp_path, cut):
    with log.path.open("a") as file:
        file.write(cut)
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_logging_goes_on_after_a_line_that_was_cut_short(log, tmp_path):
    with log.path.open("a") as file:
        file.write('{"step": 5, "lo')
    log.on_log(6, {"loss": 0.1})
    log.on_log(7, {"loss": 0.1})
    assert steps(tmp_path) in ([1, 2, 3, 4, 6, 7], [1, 2, 3, 4, 7])


def test_cutting_drops_what_came_after_the_step_a_run_resumes_from(log, tmp_path):
    with log.path.open("a") as file:
        file.write('{"step": 5, "lo')
    cut_log(tmp_path, 2)
    log.on_log(3, {"loss": 9.0})
    assert [line.get("loss") for line in read_log(tmp_path)] == [1.0, 0.5, 9.0]


def test_cutting_a_run_without_a_log_makes_none(tmp_path):
    cut_log(tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


def test_every_value_gets_a_curve_that_is_a_png(log, tmp_path):
    log.on_log(5, {"eval/loss": 1.0, "epoch": 0.5})
    log.on_log(6, {"eval/loss": 0.5, "once": 1.0})
    drawn = draw_curves(tmp_path)
    assert sorted(path.name for path in drawn) == ["eval_loss.png", "learning_rate.png", "loss.png"]
    assert all(path.parent == tmp_path / "images" for path in drawn)
    assert all(path.read_bytes().startswith(PNG) for path in drawn)
    assert all(path.read_bytes()[12:16] == b"IHDR" for path in drawn)


def test_values_that_are_no_numbers_do_not_stop_the_curves(log, tmp_path):
    log.on_log(5, {"loss": float("nan"), "learning_rate": float("inf")})
    assert len(draw_curves(tmp_path)) == 2


def test_a_run_that_logged_nothing_draws_nothing(tmp_path):
    assert draw_curves(tmp_path) == []
