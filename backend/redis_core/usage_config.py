"""What models cost here: the file to edit. A model that is not listed takes the price of the longest name it begins with.

US dollars a million tokens, from the providers' public price lists of August 2025. Prices change: compare them with your contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from redis_core.accounting.prices import Price

__all__ = ["PRICES"]

PRICES: Final[Mapping[str, Price]] = {
    "claude-opus-4": Price(15.0, 75.0, cached=1.5),
    "claude-sonnet-4": Price(3.0, 15.0, cached=0.3),
    "claude-3-5-haiku": Price(0.8, 4.0, cached=0.08),
    "gpt-4o": Price(2.5, 10.0, cached=1.25),
    "gpt-4o-mini": Price(0.15, 0.6, cached=0.075),
    "gpt-4.1": Price(2.0, 8.0, cached=0.5),
    "gpt-4.1-mini": Price(0.4, 1.6, cached=0.1),
    "gemini-2.5-pro": Price(1.25, 10.0, cached=0.31),
    "gemini-2.5-flash": Price(0.3, 2.5, cached=0.075),
}
