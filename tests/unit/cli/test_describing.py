"""What `describe` leaves out: what says nothing, and nothing else."""

from podium.cli.commands.objects import said


def test_only_what_says_nothing_is_left_out() -> None:
    given = {
        "a": None,
        "b": {"c": [], "d": ""},
        "e": [{"f": None, "g": 0}, {}],
        "h": False,
        "i": 0.0,
        "j": "x",
    }
    assert said(given) == {"e": [{"g": 0}, {}], "h": False, "i": 0.0, "j": "x"}
    assert said({"answer": {"status": 200, "body": {"outputs": [], "x": None}}}) == {
        "answer": {"status": 200, "body": {"outputs": [], "x": None}}
    }
