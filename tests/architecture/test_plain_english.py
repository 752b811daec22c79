from __future__ import annotations

import pytest

from stack.model.settings import ROOT
from tests.architecture.plain_english import riddles, written


def test_no_file_contains_a_refused_word_or_idiom() -> None:
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


WORDS = " ".join(["word"] * 25)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a.py", 'def a():\n    """Title.\n\n    {}\n    """'),
        ("a.py", "x = 1\n# {}\n# more"),
        ("a.go", "// {}\n"),
        ("a.md", "# Title\n\n- {}\n- more"),
        ("a.md", "| row | {} |\n"),
        ("a.md.j2", "{{%- if a %}}{} {{{{ value }}}}{{% endif %}}"),
    ],
)
def test_a_sentence_of_more_than_25_words_is_found(path: str, source: str) -> None:
    assert list(riddles(path, source.format(f"{WORDS[5:]}."))) == []
    (found,) = riddles(path, source.format(f"{WORDS} word."))
    assert "word word" in found.text


@pytest.mark.parametrize(
    "text",
    [f"{WORDS}. {WORDS}.", f"{WORDS}: {WORDS}", f"{WORDS}\n\n{WORDS}", f"{WORDS[5:]} `{WORDS}`", f"{WORDS} + 3 = 4"],
    ids=["full stop", "colon", "paragraphs", "code", "numbers"],
)
def test_a_sentence_of_25_words_passes(text: str) -> None:
    assert list(riddles("a.md", f"{text}\n")) == []


def test_plain_sentences_pass() -> None:
    source = '"""True if the caller has given up."""\nassert x, "what is wrong, and who must mend it"  # as above\n'
    assert list(riddles("a.py", source)) == []
