"""What happens while the store is away: who notices, who decides, and what is kept until it is back."""
