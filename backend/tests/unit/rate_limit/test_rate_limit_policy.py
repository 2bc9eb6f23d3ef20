"""Rates as text, rules as numbers, and a configuration that says what is wrong with it."""

from __future__ import annotations

import runpy
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

import redis_core.rate_limit_config as config
from redis_core.errors import ConfigError
from redis_core.rate_limit import Endpoint, Penalty, RateLimits, Rule, Subject, limits_of
from redis_core.rate_limiting.policy import PolicySet, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/min", (100, 60, None)),
        ("100 / minute", (100, 60, None)),
        ("5 per 15 min", (5, 900, None)),
        ("1_000/day", (1000, 86_400, None)),
        ("10/s", (10, 1, None)),
        ("7/2hours", (7, 7200, None)),
        ("100/MIN burst 20", (100, 60, 20)),
        ("20 concurrent", (20, 0, None)),
        ("1/31days", (1, 31 * 86_400, None)),
    ],
)
def test_a_rate_is_read(text: str, rate: tuple[int, int, int | None]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/min", "100/minut", "-1/min", "0/min", "100/0min", "1/32days", "1.5/min", "100/min burst",
     "100/min burst 0", "10/min burst 11", "0 concurrent", "1001 concurrent", "١٠/min", "100/min; DROP", "99999999999/min"],
)  # fmt: skip
def test_what_is_not_a_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as|must be from"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "Bad Name"}, "name must be"),
        ({"rate": "100/minut"}, "write it as"),
        ({"by": "planet"}, "by is 'planet'"),
        ({"algorithm": "magic"}, "algorithm is 'magic'"),
        ({"on_failure": "panic"}, "on_failure is 'panic'"),
        ({"scope": "galaxy"}, "scope is 'galaxy'"),
        ({"unit": 'to"kens'}, "unit is"),
        ({"algorithm": "gcra"}, "burst"),
        ({"rate": "10/min burst 5"}, "burst"),
        ({"algorithm": "concurrency"}, "concurrent"),
        ({"algorithm": "log", "rate": "5000/min"}, "log limits go up to 1000"),
        ({"lease": 0.5}, "lease"),
    ],
)
def test_a_bad_rule_names_file_entry_and_reason(arguments: dict[str, Any], reason: str) -> None:
    rule = Rule(**({"name": "burst", "rate": "100/min"} | arguments))
    with pytest.raises(ConfigError) as caught:
        RateLimits(rules=(Rule("first", "1/min"), rule), file="/srv/app/rate_limit_config.py")
    text = str(caught.value)
    assert text.startswith("rate_limit_config.py: rules[1]")
    assert rule.name in text
    assert reason in text


def test_a_bad_endpoint_names_its_template() -> None:
    with pytest.raises(ConfigError, match=r"endpoints\['/login'\].rules\[0\] \(login\)"):
        RateLimits(endpoints={"/login": Endpoint(rules=(Rule("login", "often"),))}, file="limits.py")
    with pytest.raises(ConfigError, match=r"endpoints\['/a:b'\]"):
        RateLimits(endpoints={"/a:b": Endpoint()})
    with pytest.raises(ConfigError, match="weight"):
        RateLimits(endpoints={"/a": Endpoint(weight=0)})
    with pytest.raises(ConfigError, match="weight 11 is more than"):
        RateLimits(rules=(Rule("r", "10/min"),), endpoints={"/a": Endpoint(weight=11)})


@pytest.mark.parametrize(
    ("arguments", "entry"),
    [
        ({"plans": {"free": 0}}, "plans['free']"),
        ({"plans": {"free": 10**7}}, "plans['free']"),
        ({"default_plan": "gold"}, "default_plan"),
        ({"trusted_proxies": -1}, "trusted_proxies"),
        ({"ipv6_prefix": 8}, "ipv6_prefix"),
    ],
)
def test_a_bad_number_names_its_entry(arguments: dict[str, Any], entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RateLimits(**arguments)
    assert entry in str(caught.value)


def test_two_rules_of_one_name_on_one_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="a name of its own"):
        RateLimits(rules=(Rule("same", "1/min"), Rule("same", "5/hour")))
    with pytest.raises(ConfigError, match="at least one"):
        PolicySet(())


@pytest.mark.parametrize("field", ["after", "within", "seconds"])
def test_a_penalty_has_positive_numbers(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Penalty(**({"after": 1} | {field: 0}))


def test_limits_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        config.LIMITS.shadow = True  # type: ignore[misc]


def test_a_plan_multiplies_what_it_may() -> None:
    limits = RateLimits(
        rules=(Rule("user", "100/min"), Rule("address", "50/min", by="ip", by_plan=False)),
        plans={"free": 1, "half": 0.5, "enterprise": 50},
    )

    def of(plan: str | None) -> list[int]:
        return [
            policy.limit for group in limits.route("/a", plan).groups for policy in group.policies.policies
        ]

    assert of("free") == of(None) == of("unheard of") == [100, 50]
    assert of("half") == [50, 50]
    assert of("enterprise") == [5000, 50]


def test_an_endpoint_s_rule_replaces_the_one_of_its_name() -> None:
    limits = RateLimits(
        rules=(Rule("sliding", "100/min"), Rule("burst", "5/sec")),
        endpoints={
            "/slow": Endpoint(rules=(Rule("sliding", "3/min"),), weight=2),
            "/health": Endpoint(exempt=True),
        },
    )
    slow = limits.route("/slow")
    assert {p.name: p.limit for g in slow.groups for p in g.policies.policies} == {"sliding": 3, "burst": 5}
    assert slow.weight == 2
    assert limits.route("/health").groups == ()


def test_watching_everything_is_one_switch() -> None:
    limits = RateLimits(rules=(Rule("r", "1/min"),), shadow=True)
    assert all(policy.shadow for group in limits.route("/a").groups for policy in group.policies.policies)


def test_the_deny_list_takes_users_workspaces_addresses_and_networks() -> None:
    limits = RateLimits(deny=("mallory", "evilcorp", "198.51.100.0/24", "2001:db8::/32"))
    denied = [
        Subject(user="mallory"),
        Subject(user="u", workspace="evilcorp"),
        Subject(ip="198.51.100.200"),
        Subject(ip="2001:db8::1"),
    ]
    assert all(limits.denies(subject) for subject in denied)
    assert not any(
        limits.denies(s)
        for s in (Subject(user="u", ip="203.0.113.1"), Subject(ip="not an address"), Subject())
    )


def test_routes_are_kept_and_bounded() -> None:
    limits = RateLimits(rules=(Rule("r", "1/min"),))
    assert limits.route("/a") is limits.route("/a")
    for n in range(5000):
        limits.route(f"/{n}")
    assert len(limits._routes) <= 4096


def test_the_sliding_window_of_the_service_is_one_line(tmp_path: Path) -> None:
    # The operations manual: "adjust the sliding window in rate_limit_config.py".
    text = Path(config.__file__).read_text("utf-8")
    assert text.count('"100/min"') - text.count('`"100/min"`') == 1
    edited = tmp_path / "rate_limit_config.py"
    edited.write_text(text.replace('Rule("sliding", "100/min")', 'Rule("sliding", "250/min")'), "utf-8")
    limits = runpy.run_path(str(edited))["LIMITS"]
    assert {
        p.limit for g in limits.route("/a").groups for p in g.policies.policies if p.name == "sliding"
    } == {250}
    edited.write_text(text.replace('Rule("sliding", "100/min")', 'Rule("sliding", "100/minut")'), "utf-8")
    with pytest.raises(
        ConfigError, match=r"rate_limit_config.py: rules\[0\] \(sliding\) is '100/minut': write it as"
    ):
        runpy.run_path(str(edited))


def test_rates_as_text_make_limits_of_their_own_names() -> None:
    limits = limits_of(["100/min", "5 per 15 min", Rule("own", "1/day")], by="ip")
    (ip, user) = limits.route("/a").groups
    assert ip.policies.names == ("100-min", "5-per-15-min")
    assert user.policies.names == ("own",)
    with pytest.raises(ConfigError, match="limit\\(\\)"):
        limits_of(["sometimes"])
