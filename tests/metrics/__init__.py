"""Every metric that torchmetrics exports, on ranks that were fed unequally."""
