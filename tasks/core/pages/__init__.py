"""Pages for people: each is one file that needs nothing else, and all have one look."""
