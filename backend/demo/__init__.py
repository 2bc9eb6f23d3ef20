"""The demo: a small campaign app, as a customer of `redis_core` would write it.

`campaigns.py` is its data, `members.py` who asks and what stands around it, `limits.py` how often, `routes.py` its JSON interface,
`page.py` its page, `traffic.py` its visitors, `app.py` puts them together. `raptorflow up` serves it under `/demo`.
"""
