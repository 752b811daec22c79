"""Quantities with a unit: durations, CPU, bytes, ratios and rates.

The classes parse the text that people write: `100ms`, `250m`, `512Mi`, `0.1%`, `400/s`. They refuse other text
with a `ValueError` that states the accepted forms. Values are immutable. Equal values have the same text, so they
render to equal bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

MAXIMUM_TEXT = 32
"""Longest accepted text, in characters. Longer text is refused before it is parsed."""
MAXIMUM_COUNT = 10**9
"""A rate has fewer events per unit of time than this number."""


class Text:
    """A value with one canonical text. Pydantic reads and writes this text, and describes it in a JSON Schema."""

    __slots__ = ()
    accepts: ClassVar[str]
    pattern: ClassVar[str]

    def __init__(self, text: str) -> None:
        """Subclasses parse `text`, and raise `ValueError` with the accepted forms."""
        raise TypeError(f"{type(self).__name__} cannot be made from a text: {text}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the text. Python's default would set the fields, but immutable values refuse that."""
        return type(self), (str(self),)

    @classmethod
    def refused(cls) -> ValueError:
        """The error for text that `accepts` does not describe."""
        return ValueError(f"expected {cls.accepts}")

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(value)
        raise cls.refused()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": cls.pattern, "description": cls.accepts}


class Measure(Text):
    """A whole number of base units. Values of two classes, such as `Cpu` and `Bytes`, do not compare or add."""

    __slots__ = ("units",)
    units: int
    UNITS: ClassVar[Mapping[str, int]]
    """Suffix of a unit → the number of base units in the unit, largest first."""
    ZERO: ClassVar[str] = "0"

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "units", self._parse(text))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by `units`, because the text of a large value may have more digits than `pattern` accepts."""
        return self.of_units, (self.units,)

    @classmethod
    def _parse(cls, text: str) -> int:
        if len(text) > MAXIMUM_TEXT or not re.fullmatch(cls.pattern, text, re.ASCII):
            raise cls.refused()
        total = sum(Decimal(number) * cls.UNITS[suffix] for number, suffix in re.findall(r"([0-9.]+)([A-Za-z]*)", text))
        if total != int(total):
            raise cls.refused()
        return int(total)

    @classmethod
    def of_units(cls, units: int) -> Self:
        """The value of `units` base units (microseconds, millicores, bytes). Raises `ValueError` below zero."""
        if units < 0:
            raise ValueError(f"{cls.__name__} cannot be negative: {units}")
        value = object.__new__(cls)
        object.__setattr__(value, "units", units)
        return value

    def __str__(self) -> str:
        return self._text(self.units)

    @classmethod
    @lru_cache(maxsize=4096)
    def _text(cls, units: int) -> str:
        """The text in the largest unit that divides `units`. Cached, because equal values are printed often."""
        for suffix, size in cls.UNITS.items():
            if units and units % size == 0:
                return f"{units // size}{suffix}"
        return cls.ZERO

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __hash__(self) -> int:
        return hash((type(self), self.units))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.units == self.units

    def __lt__(self, other: Self) -> bool:
        return self.units < self._units_of(other)

    def __le__(self, other: Self) -> bool:
        return self.units <= self._units_of(other)

    def __gt__(self, other: Self) -> bool:
        return self.units > self._units_of(other)

    def __ge__(self, other: Self) -> bool:
        return self.units >= self._units_of(other)

    def __add__(self, other: Self) -> Self:
        return self.of_units(self.units + self._units_of(other))

    def __sub__(self, other: Self) -> Self:
        return self.of_units(self.units - self._units_of(other))

    def __mul__(self, factor: float) -> Self:
        return self.of_units(round(self.units * factor))

    __rmul__ = __mul__

    def __truediv__(self, other: Self) -> float:
        return self.units / self._units_of(other)

    def __bool__(self) -> bool:
        return self.units != 0

    def _units_of(self, other: Self) -> int:
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} and {type(other).__name__} do not compare or add")
        return other.units


class Duration(Measure):
    """A span of time in whole microseconds, never negative: `100ms`, `1.5s`, `1h30m`."""

    __slots__ = ()
    accepts = "a duration with its unit, such as 100ms, 1.5s, 2m or 1h30m (us, ms, s, m, h, d)"
    pattern = r"(\d{1,16}(\.\d{1,6})?(us|ms|s|m|h|d))+"
    UNITS: ClassVar = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
    ZERO = "0s"

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.units / 1_000_000

    def whole_seconds(self) -> int:
        """Length in seconds, rounded up, because Kubernetes fields such as `periodSeconds` take whole seconds."""
        return -(-self.units // 1_000_000)


class Cpu(Measure):
    """Processor time in thousandths of a core, as Kubernetes writes it: `250m`, `1`, `1.5`."""

    __slots__ = ()
    accepts = "a CPU quantity in cores or millicores, such as 250m, 1 or 1.5"
    pattern = r"\d{1,15}(m|\.\d{1,3})?"
    UNITS: ClassVar = {"": 1000, "m": 1}

    @property
    def cores(self) -> float:
        """The quantity in cores."""
        return self.units / 1000


class Bytes(Measure):
    """Memory or storage in bytes, with or without one of Kubernetes' binary suffixes: `512Mi`, `1Gi`, `1048576`."""

    __slots__ = ()
    accepts = "a size in bytes, such as 1048576, 512Mi or 1.5Gi (suffixes Ki, Mi, Gi, Ti, Pi)"
    pattern = r"\d{1,15}(\.\d{1,3})?(Ki|Mi|Gi|Ti|Pi)|\d{1,18}"
    UNITS: ClassVar = {"Pi": 1 << 50, "Ti": 1 << 40, "Gi": 1 << 30, "Mi": 1 << 20, "Ki": 1 << 10, "": 1}

    @property
    def gibibytes(self) -> float:
        """The size in GiB."""
        return self.units / (1 << 30)


class Ratio(Text, float):
    """A share of a whole, from 0 to 1, written as a percentage or a fraction: `0.1%`, `50%`, `0.5`."""

    __slots__ = ()
    accepts = "a ratio from 0% to 100%, such as 0.1%, 50% or 0.5"
    pattern = r"\d{1,3}(\.\d{1,9})?%|[01](\.\d{1,11})?"

    def __new__(cls, text: str) -> Self:
        """Parse `text`. Raises `ValueError` with the accepted forms."""
        if len(text) > MAXIMUM_TEXT or not re.fullmatch(cls.pattern, text, re.ASCII):
            raise cls.refused()
        value = Decimal(text[:-1]) / 100 if text.endswith("%") else Decimal(text)
        if value > 1:
            raise cls.refused()
        return super().__new__(cls, value)

    def __init__(self, text: str) -> None:
        """Do nothing: `__new__` creates the value."""

    @property
    def fraction(self) -> Fraction:
        """The exact fraction. 29 % of 100 is 29, but `0.29 * 100` with floats is a little less."""
        return Fraction(float.__repr__(self))

    def __str__(self) -> str:
        percent = (Decimal(float.__repr__(self)) * 100).normalize()
        return f"{percent:f}%"

    def __repr__(self) -> str:
        return f"Ratio({str(self)!r})"

    def __hash__(self) -> int:
        return float.__hash__(self)


class Rate(Text):
    """Events per unit of time, kept as written: `400/s`, `60/m`, `1000/h`."""

    __slots__ = ("count", "unit")
    count: int
    unit: str
    accepts = "a rate of whole events per second, minute, hour or day, such as 400/s or 60/m"
    pattern = r"[1-9]\d{0,8}/(s|m|h|d)"
    SECONDS: ClassVar[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

    def __init__(self, text: str) -> None:
        if len(text) > MAXIMUM_TEXT or not re.fullmatch(self.pattern, text, re.ASCII):
            raise self.refused()
        count, unit = text.split("/")
        object.__setattr__(self, "count", int(count))
        object.__setattr__(self, "unit", unit)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Rate is immutable")

    @property
    def per_second(self) -> float:
        """Events per second."""
        return self.count / self.SECONDS[self.unit]

    def __mul__(self, share: Ratio) -> Rate:
        """A share of this rate, rounded down to whole events, and at least `1/d`.

        Half of `400/s` is `17280000/d`. If the count for a day is too large for a rate, the unit is an hour, a minute
        or a second.
        """
        exact = Fraction(self.count, self.SECONDS[self.unit]) * share.fraction
        counts = ((math.floor(exact * seconds), unit) for unit, seconds in [*self.SECONDS.items()][::-1])
        return next((Rate(f"{count}/{unit}") for count, unit in counts if 0 < count < MAXIMUM_COUNT), Rate("1/d"))

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"

    def __repr__(self) -> str:
        return f"Rate({str(self)!r})"

    def __hash__(self) -> int:
        return hash((self.count, self.unit))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rate) and (self.count, self.unit) == (other.count, other.unit)

    def __lt__(self, other: Rate) -> bool:
        return self.per_second < other.per_second


def _above_zero(value: Duration | Ratio) -> Duration | Ratio:
    if not value:
        raise ValueError(f"must be above {value}")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_above_zero)]
"""A duration longer than 0s."""
PositiveRatio = Annotated[Ratio, AfterValidator(_above_zero)]
"""A ratio above 0%."""
