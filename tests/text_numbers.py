"""A plugin of mypy, by which `make lint` finds each `int(text)` and `float(text)` outside the one door.

Text may have any length and hold any digits; `whole_number` and `number` of tnt/untrusted/reading.py say what
is wrong, with the range. Where a pattern has bounded the text before, `# type: ignore[text-number]` says so.
"""

from collections.abc import Callable

from mypy.errorcodes import ErrorCode
from mypy.plugin import FunctionContext, Plugin
from mypy.types import Instance, Type, UnionType, get_proper_type

CODE = ErrorCode("text-number", "a number is made of text outside the one door", "General")


class TextNumbers(Plugin):
    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        return _checked if fullname in ("builtins.int", "builtins.float") else None


def _checked(context: FunctionContext) -> Type:
    if context.arg_types[0] and _may_be_text(context.arg_types[0][0]):
        context.api.fail(
            "text: use whole_number or number of tnt.untrusted.reading", context.context, code=CODE
        )
    return context.default_return_type


def _may_be_text(given: Type) -> bool:
    given = get_proper_type(given)
    if isinstance(given, UnionType):
        return any(map(_may_be_text, given.items))
    texts = ("builtins.str", "builtins.bytes")
    literal = isinstance(given, Instance) and given.last_known_value is not None
    return isinstance(given, Instance) and given.type.fullname in texts and not literal


def plugin(version: str) -> type[Plugin]:
    return TextNumbers
