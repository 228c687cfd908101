"""What a trained network says about images: evaluated, predicted, and its features."""
