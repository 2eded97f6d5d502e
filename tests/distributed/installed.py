"""What the installed torchmetrics has: some of the supported versions lack metrics and arguments of newer ones."""

from __future__ import annotations

from torchmetrics import retrieval

HAS_AUROC = hasattr(retrieval, "RetrievalAUROC")  # from 1.3 on
HAS_AGGREGATION = hasattr(retrieval.RetrievalMRR(), "aggregation")  # from 1.3 on
