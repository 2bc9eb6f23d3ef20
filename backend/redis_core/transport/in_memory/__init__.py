"""What the memory store is made of; `transport/memory.py` is its face.

`engine` drives fakeredis below its client, `space` expires and evicts, `lua` runs scripts without a way out of them, `server` answers
what a server knows of itself, `corrections` holds what fakeredis answers wrongly, `clock` makes it follow ours.
"""
