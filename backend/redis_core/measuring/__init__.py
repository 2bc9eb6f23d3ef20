"""What the metrics are made of.

Read in this order: `catalogue.py` (what is measured), `histogram.py`, `meter.py` (counting, in the client), `attribution.py` (whose a
command is), `tally.py` (what is not sampled, for usage), `batch.py` (what was measured in some time), `recorder.py` (how that is written), `window.py` and `series.py` (reading it
back), `cost.py`, `documents.py` (what is told of it).
"""
