"""Floor 2: what speaks to a store. `base` is the contract; each other file at this level is one kind of store or a part they share."""
