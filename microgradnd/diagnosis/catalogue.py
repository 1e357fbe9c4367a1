"""What reports say, in several languages: texts with named fields, in `texts/*.toml`.

A field is shown in a way that suits its kind: `{ratio}` as 2.4e-6, `{train:.2f}` as Python does,
`{when_init:?}` not at all. A field that is not known (NaN, infinite, None, "", False) takes with it
the `[[ ]]` around it, or the whole text; of a list of texts the first one is taken that is left.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from math import isfinite
from string import Formatter
from typing import Any

__all__ = ["LANGUAGES", "known", "number", "say", "texts", "translated"]

#: The languages that there is a text for, with the names that they have for themselves.
LANGUAGES = {"en": "English", "zh": "中文"}
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]")


@cache
def texts(lang: str) -> dict[str, Any]:
    """Give all texts of a language, nested by section.

    Raises:
        ValueError: If there is no such language.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang must be one of {', '.join(map(repr, LANGUAGES))}, got {lang!r}")
    file = resources.files(__package__) / "texts" / f"{lang}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def say(lang: str, key: str, fields: Mapping[str, Any] | None = None, **more: Any) -> str:
    """Give a text of a language with its fields filled in.

    Args:
        lang: `"en"` or `"zh"`.
        key: Where it stands, `"finding.VANISHING.text"`.
        fields: By name.
        **more: More of them, which go before.

    Raises:
        KeyError: If there is no such text, or if fields of all its variants are unknown.

    Example:
        >>> say("en", "verdict.bad", measure="accuracy", train=0.1)
        'Not overfitting: training accuracy is 0.10'
        >>> say("en", "verdict.bad", train=float("nan"))
        'Not overfitting: the training set itself is not learned'
    """
    found: Any = texts(lang)
    for step in key.split("."):
        found = found[step]
    given = {**(fields or {}), **more}
    for text in [found] if isinstance(found, str) else found:
        parts = [_filled(part, given) for part in _OPTIONAL.split(text)]  # every other is optional
        if None not in parts[::2]:
            return "".join(part or "" for part in parts)
    raise KeyError(f"{key}: none of its texts can be filled from the fields {sorted(given)}")


def translated(lang: str, english: str) -> str:
    """Give in a language what is made in English, as far as it is known: `[said]` has patterns.

    The fields of a pattern, one behind the other, are translated in the same way, or stay.

    Example:
        >>> translated("zh", "weight decay 0.01")
        '权重衰减 0.01'
        >>> translated("en", "Adam 0.01"), translated("zh", "Adam 0.01")
        ('Adam 0.01', 'Adam 0.01')
    """
    for pattern, text in _patterns(lang):
        if found := pattern.fullmatch(english):
            return text.format(**{k: translated(lang, v) for k, v in found.groupdict().items()})
    return english


@cache
def _patterns(lang: str) -> list[tuple[re.Pattern[str], str]]:
    """Give what is matched, and the text for it."""
    return [
        (re.compile("".join(re.escape(literal) + (f"(?P<{name}>.+?)" if name else "")
                            for literal, name, _, _ in Formatter().parse(english)), re.S), text)
        for english, text in texts(lang).get("said", {}).items()
    ]  # fmt: skip


def _filled(text: str, fields: Mapping[str, Any]) -> str | None:
    """Fill in the fields; None if one is unknown."""
    out = []
    for literal, name, how, _ in Formatter().parse(text):
        out.append(literal)
        if name is None:
            continue
        value = fields.get(name)
        if not known(value):
            return None
        if how != "?":
            out.append(format(value, how) if how else number(value))
    return "".join(out)


def known(value: Any) -> bool:
    """Say whether a field is known: no NaN or infinity, not None, "" or False."""
    if isinstance(value, float):
        return isfinite(value)
    return value is not None and value is not False and value != ""


def number(value: Any) -> str:
    """Write a number as people do; anything else as text.

    Example:
        >>> number(2.4e-06), number(0.1), number(1234.5), number(0.0), number(3.0), number(7)
        ('2.4e-6', '0.1', '1230', '0', '3', '7')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not isfinite(value):
        return {True: "∞", False: "-∞"}[value > 0] if value == value else "-"
    if value == 0 or (isinstance(value, int) and abs(value) < 1e6):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.3g}'):g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
