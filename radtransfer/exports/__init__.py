"""Taking a trained model home: written, described, and proved in a fresh process to predict the same."""
