"""Reading pairs from a source tree."""

from pathlib import Path
from textwrap import dedent

import pytest

from lightning_retrieval_guard.demo.corpus import CorpusError, Pair, read_corpus, words

LIBRARY = {
    "alpha.py": '''
        """Module docstring, no function's."""

        class Reader:
            """Class docstring, no function's."""

            def read(self, size):
                """Read at most size bytes. Return what was read."""
                return self.source[:size]

            async def wait(self):
                """Wait until there
                is something to read

                and then go on."""
                await self.ready

        def undocumented():
            return 1

        def only_documented():
            """Has a docstring and nothing else."""

        def brief():
            """Internal."""
            return 2
        ''',
    "beta.py": '''
        def again(self, size):
            """Read at most size BYTES."""
            return other

        def outer(x):
            """Outermost of two functions!"""
            def inner(y):
                """Inner one, within it."""
                return y
            return inner(x)
        ''',
    "broken.py": "def f(:\n",
    "python2.py": "print 'hello'\n",
    "test/test_alpha.py": '''
        def test_it():
            """Tests are not read at all."""
            assert True
        ''',
    "site-packages/third.py": '''
        def party():
            """Third parties are not read."""
            return 3
        ''',
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small standard library."""
    for name, source in LIBRARY.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
    return tmp_path / "lib"


def test_pairs_are_first_sentences_and_sources_without_docstrings(library: Path) -> None:
    pairs = read_corpus(library).pairs
    assert pairs[0] == Pair("Read at most size bytes.", "def read(self, size):\n    return self.source[:size]")
    assert pairs[1] == Pair("Wait until there is something to read", "async def wait(self):\n    await self.ready")


def test_only_documented_functions_outside_skipped_directories_are_read_and_repeats_dropped(library: Path) -> None:
    assert [pair.sentence for pair in read_corpus(library).pairs] == [
        "Read at most size bytes.",
        "Wait until there is something to read",
        "Outermost of two functions!",
        "Inner one, within it.",
    ]


def test_files_that_do_not_parse_are_skipped_and_counted(library: Path) -> None:
    (library / "latin.py").write_bytes(b"# \xe9\n")
    (library / "null.py").write_bytes(b"x = 1\0\n")
    (library / "escape.py").write_text('x = "\\d"\n')  # nor does its odd escape warn
    assert read_corpus(library).unparsed == 4


def test_a_function_too_deep_to_write_out_is_skipped_and_counted(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unparse(node: object) -> str:
        raise RecursionError

    monkeypatch.setattr("ast.unparse", unparse)
    corpus = read_corpus(library, min_pairs=0)
    assert (corpus.pairs, corpus.unparsed) == ((), 7)


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_missing_library_is_refused_with_what_to_install(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=rf"no \.py files under .*{name}.*apt-get install libpython3-stdlib"):
        read_corpus(tmp_path / name)


def test_too_small_a_library_is_refused_with_both_numbers(library: Path) -> None:
    with pytest.raises(CorpusError, match=r"have 4 documented functions, 5 are needed\. Install the source"):
        read_corpus(library, min_pairs=5)


def test_words_splits_names() -> None:
    assert words("readHTTP_line2(x)") == ["read", "http", "line", "2", "x"]


@pytest.mark.nightly  # the end-to-end test reads it as well
def test_the_standard_library_gives_enough_pairs_and_none_twice() -> None:
    corpus = read_corpus()
    assert len(corpus.pairs) > 4000
    assert (
        len({pair.sentence for pair in corpus.pairs}) == len({pair.code for pair in corpus.pairs}) == len(corpus.pairs)
    )
