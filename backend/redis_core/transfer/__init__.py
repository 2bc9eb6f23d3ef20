"""What `portability` is made of.

`format` (the file) and `records` (what is in it), `selection` (what belongs to whom, and what is carried), `jobs` (a workspace's part of
the queues). Out: `reading` (a store's keys as records), `exporting`. In: `room` (what is in the way), `adapting` (what becomes of a record),
`writing` (records as commands), `checking` (whether a store has what a file has), `importing`. Gone: `erasing`.
"""
