"""What the metrics are made of. Read in this order: `catalogue.py` (what is measured), `histogram.py`, `meter.py` (counting, in the
client), `batch.py` (what one process measured in one minute), `buckets.py` (how that is kept), `window.py` and `series.py` (reading it
back), `documents.py` (what is told of it)."""
