"""Changes of arguments that keep comments and formatting; the only part that needs libcst."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import libcst
from libcst.metadata import MetadataWrapper, PositionProvider

from lightning_retrieval_guard.lint.finding import Edit

_Place = tuple[tuple[int, int], tuple[int, int]]


def apply_edits(source: bytes, edits: Iterable[Edit]) -> bytes:
    """A file with the changed calls."""
    module = libcst.parse_module(source)
    lines = module.code.splitlines()
    by_place: dict[_Place, list[Edit]] = {}
    for edit in edits:
        by_place.setdefault(_place_of(edit, lines), []).append(edit)
    return MetadataWrapper(module).visit(_Editor(by_place)).bytes


def diff_of(path: str, before: bytes, after: bytes) -> str:
    """The change in the unified form."""
    texts = [own.decode("utf-8", "replace").splitlines(keepends=True) for own in (before, after)]
    return "".join(difflib.unified_diff(texts[0], texts[1], path, path))


def _place_of(edit: Edit, lines: Sequence[str]) -> _Place:
    # ast counts columns in bytes of UTF-8, libcst in characters
    call = edit.call
    start, end = (call.lineno, call.col_offset), (call.end_lineno or 0, call.end_col_offset or 0)
    first, last = ((line, len(lines[line - 1].encode()[:column].decode())) for line, column in (start, end))
    return first, last


class _Editor(libcst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, edits: dict[_Place, list[Edit]]) -> None:
        super().__init__()
        self._edits = edits

    def leave_Call(self, original_node: libcst.Call, updated_node: libcst.Call) -> libcst.Call:  # noqa: N802 - of libcst
        position = self.get_metadata(PositionProvider, original_node)
        place = (position.start.line, position.start.column), (position.end.line, position.end.column)
        for edit in self._edits.get(place, []):
            for name in edit.drop:
                updated_node = _without(updated_node, name)
            for name, code in edit.set:
                updated_node = _with(updated_node, name, code)
        return updated_node


def _without(call: libcst.Call, name: str) -> libcst.Call:
    kept = [own for own in call.args if own.keyword is None or own.keyword.value != name]
    if any(_has_comment(own) for own in call.args if own not in kept):
        return call  # what is said of the argument is not thrown away
    if kept and kept[-1] is not call.args[-1] and not _has_comment(kept[-1]):
        kept[-1] = kept[-1].with_changes(comma=call.args[-1].comma)
    return call.with_changes(args=kept)


def _has_comment(argument: libcst.Arg) -> bool:
    """Whether a comment stands behind an argument."""
    space = argument.comma.whitespace_after if isinstance(argument.comma, libcst.Comma) else None
    return isinstance(space, libcst.ParenthesizedWhitespace) and space.first_line.comment is not None


def _with(call: libcst.Call, name: str, code: str) -> libcst.Call:
    value = libcst.parse_expression(code)
    arguments = list(call.args)
    for number, own in enumerate(arguments):
        if own.keyword is not None and own.keyword.value == name:
            arguments[number] = own.with_changes(value=value)
            return call.with_changes(args=arguments)
    tight = libcst.AssignEqual(libcst.SimpleWhitespace(""), libcst.SimpleWhitespace(""))
    added = libcst.Arg(value, libcst.Name(name), equal=tight)
    if not arguments:
        return call.with_changes(args=[added])
    last = arguments[-1]
    between = arguments[-2].comma if len(arguments) > 1 else libcst.MaybeSentinel.DEFAULT
    space = between.whitespace_after if isinstance(between, libcst.Comma) else call.whitespace_before_args
    end = last.comma.whitespace_after if isinstance(last.comma, libcst.Comma) else None
    if isinstance(end, libcst.ParenthesizedWhitespace) and isinstance(space, libcst.ParenthesizedWhitespace):
        # one argument a line: a comment behind the last one stays with it
        after = end.with_changes(first_line=libcst.TrailingWhitespace(), empty_lines=[])
        added = added.with_changes(comma=libcst.Comma(whitespace_after=after))
        space = end.with_changes(indent=space.indent, last_line=space.last_line)
    elif not isinstance(space, libcst.ParenthesizedWhitespace):
        space = libcst.SimpleWhitespace(" ")
    arguments[-1] = last.with_changes(comma=libcst.Comma(whitespace_after=space))
    return call.with_changes(args=[*arguments, added])
