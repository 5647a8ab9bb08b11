"""Lines of the log: one JSON object each, whatever is in them."""

import json
import logging

from podium_runtime.logs import JsonFormatter


def line(message, **extra):
    record = logging.LogRecord("a.logger", logging.WARNING, "file", 1, message, (), None)
    vars(record).update(extra)
    return json.loads(JsonFormatter().format(record))


def test_a_line_has_its_extra_fields():
    found = line("it's so", count=3, path={1: "x"})
    assert (found["level"], found["logger"], found["message"]) == ("warning", "a.logger", "it's so")
    assert (found["count"], found["path"]) == (3, {"1": "x"})


def test_what_is_no_utf_8_loses_no_line():
    assert line("bad file \udc80")["message"] == "bad file \udc80"
    found = line("fine", name_of="\udc80", other=ValueError("x"))
    assert (found["name_of"], found["other"], found["message"]) == ("\udc80", "x", "fine")
