"""All limits of a service: rules, what endpoints change, customers' plans, and who is refused altogether."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from redis_core.errors import ConfigError, InvalidKey
from redis_core.keys import check_part
from redis_core.rate_limiting.policy import By, PolicySet, Rule
from redis_core.rate_limiting.subject import EVERY_ENDPOINT, Subject

__all__ = ["Endpoint", "Group", "RateLimits", "limits_of"]

_MOST_ROUTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one endpoint has of its own.

    Args:
        rules: added to the service's, or in place of those of the same name.
        weight: how many requests one request counts as.
        exempt: whether nothing is counted here.
    """

    rules: tuple[Rule, ...] = ()
    weight: int = 1
    exempt: bool = False


class Group(NamedTuple):
    """The policies of one request that share a key."""

    by: By
    endpoint: str
    """The endpoint as the key names it."""
    policies: PolicySet


class Route(NamedTuple):
    """What holds for one endpoint and plan."""

    groups: tuple[Group, ...]
    weight: int


@dataclass(frozen=True, slots=True, eq=False)
class RateLimits:
    """All limits of a service; checked when it is made.

    Args:
        rules: what holds everywhere.
        endpoints: what single endpoints have of their own, by path template (`/agents/{id}`).
        plans: what each customer plan multiplies limits by.
        default_plan: the plan of who has none.
        deny: who is always refused: user ids, workspace ids, addresses and networks (`203.0.113.0/24`).
        trusted_proxies: how many proxies of ours stand in front; 0 believes no `X-Forwarded-For`.
        ipv6_prefix: bits of an IPv6 address that make one client.
        shadow: watch all rules and refuse nothing.
        legacy_headers: send `X-RateLimit-*` besides the standard ones.
        file: where this is written, for messages.

    Raises:
        ConfigError: names the file, the entry and the reason.
    """

    rules: tuple[Rule, ...] = ()
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict[str, Endpoint])
    plans: Mapping[str, float] = field(default_factory=lambda: {"free": 1.0})
    default_plan: str = "free"
    deny: Collection[str] = ()
    trusted_proxies: int = 0
    ipv6_prefix: int = 64
    shadow: bool = False
    legacy_headers: bool = False
    file: str = "rate limits"
    _routes: dict[tuple[str, str | None], Route] = field(
        init=False, repr=False, compare=False, default_factory=dict[tuple[str, str | None], Route]
    )
    _denied: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(
        init=False, repr=False, compare=False, default=()
    )

    def __post_init__(self) -> None:
        self._check_numbers()
        for template, endpoint in self.endpoints.items():
            self._check_endpoint(template, endpoint)
        for plan in self.plans:
            self.route(EVERY_ENDPOINT, plan)
            for template in self.endpoints:
                self.route(template, plan)
        networks, ids = _split(self.deny)
        object.__setattr__(self, "_networks", networks)
        object.__setattr__(self, "_denied", ids)

    def _wrong(self, entry: str, value: object, reason: str) -> ConfigError:
        return ConfigError(f"{Path(self.file).name}: {entry}", str(value), reason)

    def _check_numbers(self) -> None:
        for plan, factor in self.plans.items():
            if not 0 < factor <= 10**6:
                raise self._wrong(
                    f"plans[{plan!r}]", factor, "a plan's factor must be above 0 and at most 1000000"
                )
        if self.default_plan not in self.plans:
            raise self._wrong("default_plan", self.default_plan, f"it must be one of {', '.join(self.plans)}")
        if not 0 <= self.trusted_proxies <= 16:  # noqa: PLR2004
            raise self._wrong("trusted_proxies", self.trusted_proxies, "it must be from 0 to 16")
        if not 32 <= self.ipv6_prefix <= 128:  # noqa: PLR2004
            raise self._wrong("ipv6_prefix", self.ipv6_prefix, "it must be from 32 to 128")

    def _check_endpoint(self, template: str, endpoint: Endpoint) -> None:
        try:
            check_part(template.replace("{", "<").replace("}", ">"))
        except InvalidKey as error:
            raise self._wrong(f"endpoints[{template!r}]", template, str(error)) from None
        if endpoint.weight < 1:
            raise self._wrong(f"endpoints[{template!r}].weight", endpoint.weight, "it must be at least 1")

    def _groups(self, template: str, plan: str) -> tuple[Group, ...]:
        endpoint = self.endpoints.get(template, Endpoint())
        own = {rule.name for rule in endpoint.rules}
        entries = [(f"rules[{place}]", rule) for place, rule in enumerate(self.rules) if rule.name not in own]
        entries += [
            (f"endpoints[{template!r}].rules[{place}]", rule) for place, rule in enumerate(endpoint.rules)
        ]
        factor = self.plans[plan]
        together: dict[tuple[By, str], list[Rule]] = {}
        for entry, rule in entries:
            self._check_rule(entry, rule, endpoint.weight, plan)
            place = template if rule.scope == "endpoint" else EVERY_ENDPOINT
            together.setdefault((rule.by, place), []).append(
                replace(rule, shadow=True) if self.shadow else rule
            )
        groups: list[Group] = []
        for (by, place), rules in together.items():
            try:
                groups.append(Group(by, place, PolicySet([rule.policy(factor) for rule in rules])))
            except ConfigError as error:
                raise self._wrong(f"rules ({by}, {place})", error.value, error.remedy) from None
        return tuple(groups)

    def _check_rule(self, entry: str, rule: Rule, weight: int, plan: str) -> None:
        try:
            policy = rule.policy(self.plans[plan])
        except ConfigError as error:
            raise self._wrong(f"{entry} ({rule.name})", error.value, error.remedy) from None
        if rule.unit == "requests" and policy.kind != "c" and weight > policy.most:
            reason = f"the endpoint's weight {weight} is more than it lets pass at once in plan {plan!r}"
            raise self._wrong(f"{entry} ({rule.name})", rule.rate, reason)

    def route(self, endpoint: str, plan: str | None = None) -> Route:
        """What holds for one endpoint, by its template, and one plan. A plan that is not known is the default one."""
        known = self._routes.get((endpoint, plan))
        if known is not None:
            return known
        own = self.endpoints.get(endpoint)
        named = plan if plan is not None and plan in self.plans else self.default_plan
        groups = () if own and own.exempt else self._groups(endpoint, named)
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        route = Route(groups, own.weight if own else 1)
        self._routes[endpoint, plan] = route
        return route

    def denies(self, subject: Subject) -> bool:
        """Whether this subject is on the deny list. Budget: nothing."""
        if self._denied and (subject.user in self._denied or subject.workspace in self._denied):
            return True
        if not self._networks or subject.ip is None:
            return False
        try:
            address = ip_address(subject.ip)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _split(deny: Collection[str]) -> tuple[tuple[IPv4Network | IPv6Network, ...], frozenset[str]]:
    networks: list[IPv4Network | IPv6Network] = []
    ids: set[str] = set()
    for entry in deny:
        try:
            networks.append(ip_network(entry, strict=False))
        except ValueError:
            ids.add(entry)
    return tuple(networks), frozenset(ids)


def limits_of(rates: Sequence[str | Rule], *, by: By = "user") -> RateLimits:
    """Limits from rates as text: what `limit("100/min", "5/sec")` stands for.

    Raises:
        ConfigError: one is wrong.
    """
    rules = tuple(rate if isinstance(rate, Rule) else Rule(_name(rate), rate, by=by) for rate in rates)
    return RateLimits(rules=rules, file="limit()")


def _name(rate: str) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in rate.strip().lower())
    return "-".join(part for part in plain.split("-") if part)[:40].strip("-") or "limit"
