"""What a stage leaves on disk."""
