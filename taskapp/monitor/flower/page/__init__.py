"""What a tab of ours is made of."""
