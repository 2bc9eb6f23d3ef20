"""What `raptorflow rotate` walks an operator through: a file for each kind of secret, and what they share."""
