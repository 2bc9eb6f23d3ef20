"""What models cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

__all__ = ["NANO", "Price", "price_of"]

NANO: Final = 1_000_000_000
"""Costs are kept as whole billionths of a dollar: sums of floats would depend on their order."""

_MOST: Final = 1e6
"""Dollars a million tokens, above which a price is a mistake."""


class Price(Struct, frozen=True):
    """US dollars a million tokens."""

    input: float
    output: float
    cached: float | None = None
    """Of input tokens that the provider had cached; as `input` unless given."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < _MOST:
                raise ValueError(f"a price is 0 or more dollars a million tokens, not {name}={value!r}")

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """What a call costs, in billionths of a dollar.

        Args:
            input_tokens: all of them, the cached ones included.
            output_tokens: what the model wrote.
            cached_tokens: those of the input that the provider had cached.
        """
        cached = self.input if self.cached is None else self.cached
        dollars_per_million = (
            (input_tokens - cached_tokens) * self.input + cached_tokens * cached + output_tokens * self.output
        )
        return round(dollars_per_million * NANO / 1e6)


def price_of(prices: Mapping[str, Price], model: str) -> Price | None:
    """A model's price: that of its name, else of the longest name it begins with (`gpt-4o` for `gpt-4o-2024-08-06`)."""
    found = prices.get(model)
    if found is not None:
        return found
    names = [name for name in prices if model.startswith(f"{name}-")]
    return prices[max(names, key=len)] if names else None
