"""Changes of arguments that keep comments and formatting; the only part that needs libcst."""

from __future__ import annotations

from collections.abc import Iterable

import libcst
from libcst.metadata import MetadataWrapper, PositionProvider

from lightning_retrieval_guard.lint.finding import Edit
from lightning_retrieval_guard.lint.source import column_of, lines_of


def apply_edits(source: bytes, edits: Iterable[Edit]) -> bytes:
    """A file with the changed calls; as it is where libcst cannot read what this Python can."""
    by_end: dict[tuple[int, int], list[Edit]] = {}
    try:
        module = libcst.parse_module(source)
        lines = lines_of(module.code)
        for edit in edits:
            # no two calls end at one place, while many may start there; libcst counts columns in characters
            line, offset = edit.call.end_lineno or 0, edit.call.end_col_offset or 0
            by_end.setdefault((line, column_of(lines[line - 1], offset)), []).append(edit)
        return MetadataWrapper(module).visit(_Editor(by_end)).bytes
    except (libcst.ParserSyntaxError, RecursionError):
        return source


class _Editor(libcst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, edits: dict[tuple[int, int], list[Edit]]) -> None:
        super().__init__()
        self._edits = edits

    def leave_Call(self, original_node: libcst.Call, updated_node: libcst.Call) -> libcst.Call:  # noqa: N802 - of libcst
        end = self.get_metadata(PositionProvider, original_node).end
        for edit in self._edits.get((end.line, end.column), []):
            for name in edit.drop:
                updated_node = _without(updated_node, name)
            for name, code in edit.set:
                updated_node = _with(updated_node, name, libcst.parse_expression(code))
        return updated_node


def _without(call: libcst.Call, name: str) -> libcst.Call:
    kept = [argument for argument in call.args if not _is_named(argument, name)]
    spaces = [call.whitespace_before_args, *map(_space_behind, call.args)]
    for argument, before in zip(call.args, spaces, strict=False):
        if _is_named(argument, name) and (_has_comment(argument) or _ends_with_comment(before)):
            return call  # what is said of the argument is not thrown away
    if kept and kept[-1] is not call.args[-1] and not _has_comment(kept[-1]):
        kept[-1] = kept[-1].with_changes(comma=call.args[-1].comma)
    return call.with_changes(args=kept)


def _is_named(argument: libcst.Arg, name: str) -> bool:
    return argument.keyword is not None and argument.keyword.value == name


def _space_behind(argument: libcst.Arg) -> libcst.BaseParenthesizableWhitespace:
    """What stands between an argument, or its comma, and what follows."""
    comma = argument.comma
    return comma.whitespace_after if isinstance(comma, libcst.Comma) else argument.whitespace_after_arg


def _has_comment(argument: libcst.Arg) -> bool:
    """Whether a comment stands behind an argument, in its line."""
    space = _space_behind(argument)
    return isinstance(space, libcst.ParenthesizedWhitespace) and space.first_line.comment is not None


def _ends_with_comment(space: libcst.BaseParenthesizableWhitespace) -> bool:
    """Whether a line of its own in a space holds a comment, which is about what follows."""
    lines = space.empty_lines if isinstance(space, libcst.ParenthesizedWhitespace) else ()
    return any(line.comment is not None for line in lines)


def _with(call: libcst.Call, name: str, value: libcst.BaseExpression) -> libcst.Call:
    if any(_is_named(argument, name) for argument in call.args):
        changed = [part.with_changes(value=value) if _is_named(part, name) else part for part in call.args]
        return call.with_changes(args=changed)
    tight = libcst.AssignEqual(libcst.SimpleWhitespace(""), libcst.SimpleWhitespace(""))
    added = libcst.Arg(value, libcst.Name(name), equal=tight)
    if not call.args:
        return call.with_changes(args=[added])
    *others, last = call.args
    between = others[-1].comma if others else libcst.MaybeSentinel.DEFAULT
    space = between.whitespace_after if isinstance(between, libcst.Comma) else call.whitespace_before_args
    end, has_comma = _space_behind(last), isinstance(last.comma, libcst.Comma)
    if isinstance(end, libcst.ParenthesizedWhitespace) and isinstance(space, libcst.ParenthesizedWhitespace):
        # one argument a line: a comment behind the last one stays with it
        space = end.with_changes(indent=space.indent, last_line=space.last_line)
        end = end.with_changes(first_line=libcst.TrailingWhitespace(), empty_lines=[])
    elif not isinstance(space, libcst.ParenthesizedWhitespace):
        space = libcst.SimpleWhitespace(" ")
    if not has_comma:
        added = added.with_changes(whitespace_after_arg=end)
    elif isinstance(end, libcst.ParenthesizedWhitespace):
        added = added.with_changes(comma=libcst.Comma(whitespace_after=end))
    nothing = libcst.SimpleWhitespace("")
    last = last.with_changes(comma=libcst.Comma(whitespace_after=space), whitespace_after_arg=nothing)
    return call.with_changes(args=[*others, last, added])
