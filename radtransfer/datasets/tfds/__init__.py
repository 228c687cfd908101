"""Sets of TensorFlow Datasets, and those that `data prepare` writes in the same form: one reader for both."""
