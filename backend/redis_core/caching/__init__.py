"""What the cache is made of; `redis_core.cache` is its face.

Read in this order: `region` (what is cached, and how), `envelope` (its bytes), `memory` and `store` (the two tiers), `tiers` (both as
one), `load` (how a value comes in), `backplane` (how processes tell one another), `engine` (what a process has one of).
"""
