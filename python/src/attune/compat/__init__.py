"""The calls of other libraries, with their argument names, layouts and results, computed by Attune.

attune.compat.torch, .flash_attn, .xformers and .transformers; each imports PyTorch. Where a result
differs on purpose (rows with nothing to attend to, for one), docs/python.md says so.
"""
