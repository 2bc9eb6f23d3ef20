"""What rate limits are made of; `redis_core.rate_limit` is their face and `redis_core.rate_limit_config` the file to edit.

Read in this order: `policy` (what a limit is), `limits` (all of a service), `subject` (whose request it is), `decision` (the answer),
`algorithms` (the counting, in Python), `exact` and `economy` (the two plans of counting in a store), `request` (one request on both),
`local` (what a process knows by itself), `engine` (what a limiter does with all this), `reservation`, `headers`.
"""
