"""What sessions are made of; `redis_core.session` is their face.

Read in this order: `token` and `pepper` (what a browser holds, and the key that Redis does not hold), `record` and `policy` (a
session's fields and times), `data` and `value` (the application's own), `store` (batches and scripts), `login` (issue, cap,
rotate), `epoch` (revocation of many), `object` (a loaded session), `event` (what is told of them).
"""
