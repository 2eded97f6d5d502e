"""Talking: the only part that uses ``torch.distributed``."""
