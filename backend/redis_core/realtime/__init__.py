"""What `pubsub` is made of. `registry` says which shape each topic has."""
