"""What `portability` is made of.

`format` (the file) and `records` (what is in it), `selection` (what belongs to whom, and what is carried), `reading` (a store's keys as records), `writing` (records
as commands), `checking` (whether a store has what a file has), `jobs` (a workspace's part of the queues), `erasing` (what else names it).
"""
