"""What the scripts hand on, a module a kind of file."""
