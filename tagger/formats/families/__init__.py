"""Public taggers, a module a family: known by its files, and read into one description that the engines carry out."""
