"""A mapping's expressions, conditions and steps: from TOML to `language`, refusing what nobody knows."""

import re
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from features.crm import toml_values as toml
from features.crm.language import (
    Alias,
    Cases,
    Changed,
    Condition,
    Expression,
    FileRule,
    FirstOf,
    Fixed,
    Joined,
    Latest,
    LookUp,
    Make,
    Part,
    Step,
    Translated,
    Unpivot,
)
from features.problems import UserError

_OTHER = ("keep", "blank", "refuse", "pass_over")
_TESTS = ("in", "not_in", "in_set", "not_in_set", "blank", "matches", "at_least", "below", "differs_from")
_NUMBERS = ("at_least", "below")


class Parser:
    """Knows the files, named lists and sets of one mapping.

    Parameters
    ----------
    name : the mapping's name, for errors
    files : its files; their aliases are the only ones known
    values : named lists of values
    sets : names of sets
    added : further aliases of a file, such as an unpivot makes
    """

    def __init__(
        self,
        name: str,
        files: Dictionary[str, FileRule],
        values: Dictionary[str, Dictionary[str, str]],
        sets: Sequence[str],
        added: Dictionary[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.name = name
        self._files, self._values, self._sets = files, values, sets
        self._added = added or {}

    def with_aliases(self, file: str, aliases: tuple[str, ...]) -> "Parser":
        """Return a parser that knows further aliases of a file."""
        added = {**self._added, file: (*self._added.get(file, ()), *aliases)}
        return Parser(self.name, self._files, self._values, self._sets, added)

    def file(self, name: object, where: str) -> str:
        """Return a file's name; refuse an unknown one."""
        if not isinstance(name, str) or name not in self._files:
            known = ", ".join(self._files)
            raise UserError(f"{where}: {name!r} is no file of the mapping. Known files: {known}.")
        return name

    def alias(self, name: object, file: str, where: str) -> str:
        """Return an alias of a file; refuse an unknown one."""
        rule = self._files[file]
        known = (*rule.columns, *rule.patterns, *self._added.get(file, ()))
        if not isinstance(name, str) or name not in known:
            near = get_close_matches(str(name), known, n=3) or known
            raise UserError(f"{where}: [files.{file}] has no alias {name!r}. Nearest: {', '.join(near)}.")
        return name

    def expression(self, text: Any, file: str, where: str) -> Expression:
        """Read what stands for one column."""
        if isinstance(text, str):
            return Alias(self.alias(text, file, where))
        if isinstance(text, list) and text:
            return FirstOf(tuple(self.expression(item, file, where) for item in text))
        if isinstance(text, dict):
            for key, reader in (
                ("text", self._fixed),
                ("number", self._fixed),
                ("flag", self._fixed),
                ("part", self._part),
                ("join", self._joined),
                ("of", self._translated),
                ("file", self._look_up),
                ("cases", self._cases),
            ):
                if key in text:
                    return reader(text, file, where)
        raise UserError(f"{where}: {text!r} says no value; see the language in features/crm/mapping.py.")

    def _fixed(self, text: dict[str, Any], _file: str, where: str) -> Expression:
        if len(text) != 1:
            raise UserError(f"{where}: {text!r} should have one key only.")
        value = next(iter(text.values()))
        if not isinstance(value, str | int | float | bool):
            raise UserError(f"{where}: {text!r} should be a text, a number or a flag.")
        return Fixed(value)

    def _translated(self, text: dict[str, Any], file: str, where: str) -> Expression:
        toml.known_keys(text, ("of", "values", "other", "because", "counted"), where)
        name = text.get("values")
        if isinstance(name, str) and name not in self._values:
            known = ", ".join(self._values) or "none"
            raise UserError(f"{where}: there is no [values.{name}]. Known: {known}.")
        values = self._values[name] if isinstance(name, str) else toml.words(text, "values", where)
        other = text.get("other", "keep")
        if other not in _OTHER:
            raise UserError(f"{where}: other should be one of {', '.join(_OTHER)}; came {other!r}.")
        folded = {key.strip().casefold(): value for key, value in values.items()}
        because, counted = (toml.text(text, key, where) for key in ("because", "counted"))
        return Translated(self.expression(text["of"], file, where), folded, other, because, counted)

    def _part(self, text: dict[str, Any], file: str, where: str) -> Expression:
        toml.known_keys(text, ("of", "part"), where)
        pattern = toml.text(text, "part", where)
        check_pattern(pattern, where)
        if "of" not in text or re.compile(pattern).groups != 1:
            raise UserError(f"{where}: a part needs of, and a pattern with one group (...); came {text!r}.")
        return Part(self.expression(text["of"], file, where), pattern)

    def _joined(self, text: dict[str, Any], file: str, where: str) -> Expression:
        toml.known_keys(text, ("join",), where)
        if not isinstance(text["join"], list) or not text["join"]:
            raise UserError(f"{where}: join should be a list of expressions; came {text!r}.")
        return Joined(tuple(self.expression(part, file, where) for part in text["join"]))

    def _look_up(self, text: dict[str, Any], file: str, where: str) -> Expression:
        toml.known_keys(text, ("file", "by", "match", "column", "rows", "pick", "at", "several"), where)
        other = self.file(text["file"], where)
        match = text.get("match", self._files[other].key)
        if match is None:
            raise UserError(f'{where}: [files.{other}] has no key; write match = "alias" in the look-up.')
        if "by" not in text or "column" not in text:
            raise UserError(f"{where}: a look-up needs by and column; came {text!r}.")
        pick = text.get("pick", "last")
        if pick not in ("last", "first", "only"):
            raise UserError(f"{where}: pick should be last, first or only; came {pick!r}.")
        steps, added = self.steps(toml.tables(text, "rows", where), other, where)
        scoped = self.with_aliases(other, added)
        return LookUp(
            file=other,
            by=self.expression(text["by"], file, where),
            match=self.alias(match, other, where),
            column=scoped.alias(text["column"], other, where),
            rows=steps,
            pick=pick,
            several=toml.text(text, "several", where),
            at=None if text.get("at") is None else scoped.alias(text["at"], other, where),
        )

    def _cases(self, text: dict[str, Any], file: str, where: str) -> Expression:
        toml.known_keys(text, ("cases", "otherwise"), where)
        cases = []
        for case in toml.tables(text, "cases", where):
            toml.known_keys(case, ("where", "then"), where)
            if "where" not in case or "then" not in case:
                raise UserError(f"{where}: a case needs where and then; came {case!r}.")
            conditions = tuple(
                self.condition(item, file, where) for item in toml.tables(case, "where", where)
            )
            cases.append((conditions, self.expression(case["then"], file, where)))
        otherwise = text.get("otherwise")
        last = None if otherwise is None else self.expression(otherwise, file, where)
        return Cases(tuple(cases), last)

    def condition(self, text: Any, file: str, where: str, step: bool = False) -> Condition:
        """Read a condition; a step's needs to say what becomes of the rows that fail it."""
        if not isinstance(text, dict) or "column" not in text:
            raise UserError(f"{where}: {text!r} is no condition; it needs a column and a test.")
        toml.known_keys(text, ("column", *_TESTS, "days_after", "because", "refuse"), where)
        if not any(test in text for test in _TESTS):
            raise UserError(f"{where}: {text!r} has no test. Known tests: {', '.join(_TESTS)}.")
        if "days_after" in text and not any(test in text for test in _NUMBERS):
            raise UserError(f"{where}: {text!r} counts days; say how many with at_least or below.")
        if step and not (text.get("because") or text.get("refuse")):
            raise UserError(f'{where}: {text!r} should say because = "..." or refuse = "...".')
        negated = "not_in" in text or "not_in_set" in text
        if negated and ("in" in text or "in_set" in text):
            raise UserError(f"{where}: {text!r} has both in and not_in; write two conditions.")
        listed = toml.texts(text, "in", where) + toml.texts(text, "not_in", where)
        sets = toml.texts(text, "in_set", where) + toml.texts(text, "not_in_set", where)
        for name in sets:
            if name not in self._sets:
                raise UserError(
                    f"{where}: there is no [sets.{name}]. Known: {', '.join(self._sets) or 'none'}."
                )
        check_pattern(text.get("matches"), where)
        return Condition(
            of=self.expression(text["column"], file, where),
            texts=tuple(each.strip().casefold() for each in listed) if {"in", "not_in"} & set(text) else None,
            sets=sets,
            negated=negated,
            blank=toml.flag(text, "blank", where) if "blank" in text else None,
            matches=toml.text(text, "matches", where) if "matches" in text else None,
            at_least=toml.number(text, "at_least", where),
            below=toml.number(text, "below", where),
            differs_from=(
                self.expression(text["differs_from"], file, where) if "differs_from" in text else None
            ),
            days_after=self.expression(text["days_after"], file, where) if "days_after" in text else None,
            because=toml.text(text, "because", where),
            refuse=toml.text(text, "refuse", where),
        )

    def steps(
        self, texts: Sequence[dict[str, Any]], file: str, where: str
    ) -> tuple[tuple[Step, ...], tuple[str, ...]]:
        """Read steps in their order, and the aliases that they make."""
        parser, steps = self, list[Step]()
        added: tuple[str, ...] = ()
        for text in texts:
            step = parser._step(text, file, f"{where} rows")
            made = _made(step)
            if made:
                added = (*added, *made)
                parser = self.with_aliases(file, added)
            steps.append(step)
        return tuple(steps), added

    def _step(self, text: dict[str, Any], file: str, where: str) -> Step:
        if "column" in text:
            return self.condition(text, file, where, step=True)
        if "make" in text:
            return self._make(text, file, where)
        because = toml.text(text, "because", where)
        if not because:
            raise UserError(f'{where}: {text!r} should say because = "...".')
        if "changed" in text:
            toml.known_keys(text, ("changed", "by", "at", "because", "until"), where)
            columns = tuple(self.alias(name, file, where) for name in toml.texts(text, "changed", where))
            by, at = (self.alias(text.get(key), file, where) for key in ("by", "at"))
            return Changed(columns, by, at, because, toml.text(text, "until", where) or None)
        if "latest" in text:
            toml.known_keys(text, ("latest", "at", "because"), where)
            by, at = (self.alias(text.get(key), file, where) for key in ("latest", "at"))
            return Latest(by, at, because)
        if "unpivot" in text:
            return self._unpivot(text, file, where, because)
        raise UserError(f"{where}: {text!r} is no step; see the language in features/crm/mapping.py.")

    def _make(self, text: dict[str, Any], file: str, where: str) -> Step:
        toml.known_keys(text, ("make", "as"), where)
        name = toml.text(text, "make", where)
        if not name or "as" not in text:
            raise UserError(f"{where}: {text!r} should name an alias and say as = EXPRESSION.")
        return Make(name, self.expression(text["as"], file, where))

    def _unpivot(self, text: dict[str, Any], file: str, where: str, because: str) -> Step:
        toml.known_keys(text, ("unpivot", "name", "value", "because"), where)
        name, value, columns = text.get("name"), text.get("value"), text["unpivot"]
        if not isinstance(name, str) or not isinstance(value, str):
            raise UserError(f"{where}: an unpivot needs name and value, the aliases it makes.")
        if isinstance(columns, str):
            wide = self.alias(columns, file, where)
            if wide not in self._files[file].patterns:
                raise UserError(f"{where}: '{wide}' is one column; an unpivot needs a pattern.")
            return Unpivot(name, value, wide=wide, because=because)
        named = toml.words(text, "unpivot", where)
        pairs = tuple((each, self.alias(alias, file, where)) for each, alias in named.items())
        return Unpivot(name, value, columns=pairs, because=because)


def _made(step: Step) -> tuple[str, ...]:
    """Return the aliases that a step makes."""
    if isinstance(step, Unpivot):
        return step.name, step.value
    if isinstance(step, Make):
        return (step.name,)
    return (step.until,) if isinstance(step, Changed) and step.until is not None else ()


def check_pattern(pattern: object, where: str) -> None:
    """Refuse a pattern that is none."""
    if pattern is None:
        return
    try:
        re.compile(str(pattern))
    except re.error as error:
        raise UserError(f"{where}: the pattern '{pattern}' is none: {error}.") from None
