"""One network trained by several devices and machines at a time: each replica computes its part of every batch."""
