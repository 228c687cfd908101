"""Figures, one kind a file: each draws plain values and gives a matplotlib `Figure` that could go into a paper.

No figure reads a run or computes a result. `style.py` holds what they share: colours, sizes and saving.
"""
