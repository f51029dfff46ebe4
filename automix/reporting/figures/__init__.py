"""One function per kind of figure; each takes data, a width in inches and a theme."""
