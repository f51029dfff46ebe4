"""Where the class evidence of an image lies: saliency maps from several sources."""
