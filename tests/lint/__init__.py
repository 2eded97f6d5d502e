"""The static lint: rules, formats, the command and the documents that show it."""
