"""Sources of images: folders, torchvision datasets, streamed folders."""
