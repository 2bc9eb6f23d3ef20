"""What the Upstash transport is made of; `transport/upstash.py` is its face.

`wire` is pure: commands to bodies, bodies to replies. `binary` carries what JSON cannot hold, `pieces` cuts a batch into requests,
`batch` gathers a turn's commands and bounds what is under way, `session` is the only file that knows the HTTP library, `sse` listens.
"""
