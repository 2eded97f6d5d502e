"""A corpus of programs as people write them, with the findings that are right for each of them."""
