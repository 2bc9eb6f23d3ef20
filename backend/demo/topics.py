"""What the demo's topics carry. `raptorflow types demo.topics demo.tasks --out frontend/demo/src/events.ts` tells it to TypeScript."""

from __future__ import annotations

import msgspec

from redis_core.realtime.registry import topics


@topics.state("campaign:*")
class CampaignPage(msgspec.Struct):
    """A campaign that several people edit at once."""

    title: str = ""
    audience: str = ""
    budget: int = 0
    """In euros a day."""
    notes: str = ""
    question: int = 0
    """How many questions the agent was asked; its answer is the topic `answer:<campaign>-<question>`."""


@topics.presence("campaign:*")
class Viewer(msgspec.Struct):
    """Somebody who has the campaign open."""

    name: str
    hue: int
    """Degrees of the colour circle."""
    field: str | None = None
    """What they are editing."""


@topics.events("campaign:*")
class Saved(msgspec.Struct, tag=True):
    """A field was changed."""

    by: str
    field: str


@topics.events("campaign:*")
class Said(msgspec.Struct, tag=True):
    """Somebody said something to all who have the campaign open."""

    by: str
    text: str


topics.text("answer:*")
