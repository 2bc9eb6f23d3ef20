"""What the embedded store is made of; `transport/embedded.py` is its face.

`supervisor` is a program of its own that owns the server, `hold` is a process' connection to it, `place` is the folder of both.
"""
