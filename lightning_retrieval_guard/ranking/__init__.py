"""Scores every query of some rows by any number of retrieval metrics at once, exactly as torchmetrics does.

Knows nothing of epochs and processes. A row takes this way:

1. ``Rows``: three columns in order of arrival, as the list states of a metric hold them.
2. ``rows.Block``: whole queries with all their rows, those of a query in order of arrival.
3. ``ranked.Ranked``: the rows of each query from the best to the worst, from one sort; with cut-offs in all measures,
   of those rows alone that may be above the largest.
4. ``score.Scores``: one value a query for each ``Measure``, which ``aggregate`` makes one number.
"""

from lightning_retrieval_guard.ranking.measures import Measure, measure_of
from lightning_retrieval_guard.ranking.rows import Rows
from lightning_retrieval_guard.ranking.score import aggregate, score

__all__ = ["Measure", "Rows", "aggregate", "measure_of", "score"]
