"""Saliency maps: from gradients, from the image alone, and kept over steps."""
