"""Static lint: what the source alone makes certain. Code is parsed, never run, and nothing here needs torch.

1. ``runner`` is the command, with its formats: ``files`` lists what to read, ``fixing`` changes what was found.
2. ``plugin`` checks one file, for the command and for flake8. ``source`` is a parsed file with what it imports.
3. ``interpreter`` runs every method of a class on what is known of values (``values``); a hook gets a batch of this
   rank. ``statements`` and ``expressions`` are its two kinds of nodes; ``calls`` and ``tensors`` say what comes out.
4. What the methods do to metrics and loggers is noted in a story of ``events``.
5. ``log_rules`` and ``metric_rules`` judge each event by its story, and yield each ``finding``.
"""
