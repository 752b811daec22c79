from __future__ import annotations

import pytest

from stack.model.settings import ROOT
from tests.architecture.plain_english import riddles, written


def test_no_file_holds_a_riddle() -> None:
    paths = list(written(ROOT))
    assert {"README.md", "stack/cli/__init__.py", "Makefile"} <= set(paths)
    found = [str(riddle) for path in paths for riddle in riddles(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("opening", ["What it is.", "Who asks.", "Whose name.", "Whether it is.", "Likewise."])
@pytest.mark.parametrize(
    "source",
    [
        '"""{}"""',
        'class A:\n    """{}"""',
        'class A:\n    b: int\n    """{}"""',
        'def a():\n    if 1:\n        """{}"""',
    ],
    ids=["module", "class", "attribute", "block"],
)
def test_a_docstring_that_begins_with_a_refused_word_is_found(source: str, opening: str) -> None:
    assert [riddle.text for riddle in riddles("a.py", source.format(opening))][:1] == [opening]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a.py", 'raise ValueError("no_api_token is given up")'),
        ("a.py", "x = 1  # noqa: S104  # likewise"),
        ("a.yaml", "# the container is begun anew"),
        ("a.md", "Without its store the least replicas together admit the limit."),
    ],
)
def test_an_idiom_is_found_in_messages_comments_and_documents(path: str, line: str) -> None:
    (found,) = riddles(path, f"{line}\n")
    assert (found.line, found.text) == (1, line)


def test_plain_sentences_pass() -> None:
    source = '"""True if the caller has given up."""\nassert x, "what is wrong, and who must mend it"  # as above\n'
    assert list(riddles("a.py", source)) == []
